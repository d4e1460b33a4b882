"""What a trained model owes to its parts: the same weights with a part switched off while they run."""

from collections.abc import Iterator
from contextlib import contextmanager

ABLATIONS = ("reset", "uniform")


@contextmanager
def ablated(model, kind: str) -> Iterator[None]:
    """Switch a part of a model off for a while; sessions made inside do without it.

    "reset" forgets everything at every frame: no recurrence, no difference to the last frame, no temporal attention,
    for the clip and for every track, so a clip's answer is the mean over its frames' answers. "uniform" makes alpha and
    beta of Eqs. 3 and 5 uniform over the frame (or the box) and over the window.

    Args:
        model: a KineTrack model with heads.
        kind: "reset" or "uniform".

    Raises:
        ValueError: no such ablation, or a model that runs as a graph, of which no part can be switched off.
    """
    if not hasattr(model, "register_forward_pre_hook"):
        raise ValueError("A part can be switched off in a PyTorch model only; evaluate the model that was exported.")
    if kind not in ABLATIONS:
        raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}, got {kind!r}.")
    attention, config = model.kinetrack.attention, model.config
    if kind == "uniform":
        before = attention.use_spatial, attention.use_temporal
        attention.use_spatial = attention.use_temporal = False
        try:
            yield
        finally:
            attention.use_spatial, attention.use_temporal = before
        return
    before = attention.window, config.attention_window
    # A window of one frame empties the rings of clips and tracks; the hook takes the rest of the state away.
    attention.window = config.attention_window = 1
    hook = model.register_forward_pre_hook(_without_state, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        attention.window, config.attention_window = before


def _without_state(module, positional, named):
    return positional, {**named, "state": None}
