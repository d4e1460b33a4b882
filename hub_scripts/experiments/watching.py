"""What a model detects in sequences, and how sharp its temporal attention is meanwhile, kept on disk."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...processing.graphs.graph_cache import weight_hash
from ..ablation import ablated
from ..atomic_files import write_json_atomically
from ..detection_cache import SequenceDetections, detect_sequence, load_detections, save_detections
from ..evaluation_items import Sequence


def watch_sequences(
    model, processor, sequences: list[Sequence], memory: bool, cache: Path, restart: int | None = None
) -> tuple[list[SequenceDetections], dict[str, list]]:
    """Runs the stream form over sequences, without association.

    Args:
        model: with a tracking head.
        processor: the model's.
        sequences: what to look at.
        memory: whether the model carries anything from frame to frame (see `ablated`, "reset").
        cache: folder; what this very model has watched before is read from there.
        restart: steps of the temporal part after which the model forgets everything; see `in_clips`.

    Returns:
        Detections of every sequence; and by its name, per frame, `[entropy, newest]` of beta: relative to uniform, and
        its weight on the newest frame.
    """
    file = Path(cache) / f"watched-{_key(model, processor, sequences, memory, restart)}.npz"
    attention_file = file.with_suffix(".json")
    if not (file.is_file() and attention_file.is_file()):
        attention: dict[str, list] = {}
        detected = []
        for item in sequences:
            series = attention[item.folder.name] = []

            def keep(result, series=series) -> None:
                series.append([round(value, 4) for value in sharpness_of(result.temporal_attention)])

            with contextlib.nullcontext() if memory else ablated(model, "reset"), in_clips(model, restart):
                detected.append(detect_sequence(model, processor, item, on_result=keep))
        save_detections(detected, file)
        write_json_atomically(attention_file, attention)
    return load_detections(sequences, file), json.loads(attention_file.read_text(encoding="utf-8"))


@contextlib.contextmanager
def in_clips(model, length: int | None) -> Iterator[None]:
    """While it lasts, sessions forget after every `length` steps of the temporal part, as if a clip had ended there.

    Association is not touched: a tracker goes on from clip to clip. A session shows frames between two steps with the
    state of the last step, so a state that comes again is no further step.

    Args:
        model: a KineTrack model with heads, given one frame at a time.
        length: T; None: they never forget.
    """
    if length is None:
        yield
        return
    last, seen = None, -1  # a session begins with a state of no frame

    def forget(module, positional, named):
        nonlocal last, seen
        if named["state"] is not last:
            seen = 1 if seen == length else seen + 1
            last = named["state"]
        return positional, named if seen < length else {**named, "state": None}

    hook = model.register_forward_pre_hook(forget, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def sharpness_of(beta: np.ndarray) -> tuple[float, float]:
    """Entropy of beta relative to uniform, and its weight on the newest frame; `(W,)`, newest last."""
    weights = beta[beta > 0].astype(np.float64)
    entropy = float(-(weights * np.log(weights)).sum() / np.log(len(beta))) if len(beta) > 1 else 1.0
    return entropy, float(beta[-1])


def _key(model, processor, sequences: list[Sequence], memory: bool, restart: int | None) -> str:
    key = hashlib.sha256(weight_hash(model).encode())
    form = [processor.to_dict(), memory, *([] if restart is None else [restart])]
    key.update(json.dumps(form, sort_keys=True, default=str).encode())
    for sequence in sequences:
        size = (sequence.folder / "gt" / "gt.txt").stat().st_size
        key.update(f"{sequence.folder.resolve()}{sequence.part}{size}".encode())
    return key.hexdigest()[:16]
