"""Where a model's time goes, for clips of many lengths and for steps of a stream."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from .benchmark_clock import count_flops, in_steps, peak_memory, synchronise, time_in_turns

LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
PARTS = ("encoder", "motion", "propagation", "attention", "heads")
PRESETS = {"nano": ((224, 224), (352, 640)), "base": ((224, 224),)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def make_preset(preset: str, model_class=None, **overrides):
    """A model of a preset with random weights, in eval mode; with 21 actions, as the shipped one has."""
    from ..configuration.configuration_kinetrack import KineTrackConfig
    from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis

    torch.manual_seed(0)
    config = KineTrackConfig.from_preset(preset, num_labels=21, **overrides)
    return (model_class or KineTrackForVideoAnalysis)(config).eval()


@contextmanager
def timed_parts(model, device: str = "cpu") -> Iterator[dict[str, float]]:
    """Seconds spent in every part of a model with heads while the `with` block runs, added up."""
    seconds: dict[str, float] = defaultdict(float)

    def watched(part, function):
        def call(*arguments, **named):
            synchronise(device)
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                synchronise(device)
                seconds[part] += time.perf_counter() - start

        return call

    base = model.kinetrack
    watch = [("encoder", base.encoder, "forward"), ("motion", base.motion, "forward")]
    watch += [("propagation", block, "forward") for block in base.propagation]
    watch += [("attention", base.attention, name) for name in ("attend_space", "attend_time")]
    watch += [("heads", head, "forward") for head in (model.action_head, model.tracking_head)]
    watch = [entry for entry in watch if entry[1] is not None]
    for part, owner, name in watch:
        setattr(owner, name, watched(part, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for _, owner, name in watch:
            delattr(owner, name)


def measure_form(model, length: int, size: tuple[int, int], device: str = "cpu", seconds: float = 2.0) -> dict:
    """One model on clips of one length; of length 0, on steps of a stream.

    Args:
        model: with heads, on `device`.
        length: T, or 0 for the streaming form.
        size: (height, width) of the model input.
        device: a PyTorch device.
        seconds: to spend.

    Returns:
        `ms` (a `Timing`), `ms_per_frame`, `frames_per_second`, `parts` (median ms of each), `gflops`, `peak_mib`.
    """
    clip = torch.randn(1, max(1, length), 3, *size, device=device, dtype=model.dtype)
    with torch.inference_mode():
        state = None if length else model(clip).state

        def run():
            model(clip, state=state)

        timing = time_in_turns({"run": run}, seconds, device)["run"]
        parts = defaultdict(list)
        for _ in range(3):
            with timed_parts(model, device) as spent:
                run()
            for name in PARTS:
                parts[name].append(1000 * spent[name])
        return {
            "frames": length,
            "form": "clip" if length else "step",
            "ms": timing.as_dict(),
            "ms_per_frame": timing.p50 / max(1, length),
            "frames_per_second": 1000 * max(1, length) / timing.p50,
            "parts": {name: sorted(values)[1] for name, values in parts.items()},
            "gflops": count_flops(run),
            "peak_mib": peak_memory(run, device),
        }


def measure_forms(
    lengths: Sequence[int] = LENGTHS,
    presets: dict[str, Sequence[tuple[int, int]]] | None = None,
    dtypes: Sequence[str] = ("float32",),
    device: str = "cpu",
    seconds: float = 2.0,
) -> list[dict]:
    """All lengths and the streaming form, for every preset, size and type of number.

    Returns:
        Rows of `measure_form` with `preset`, `model_input`, `dtype` and `parameters` (millions).
    """
    rows = []
    for preset, sizes in (presets or PRESETS).items():
        for dtype in dtypes:
            model = make_preset(preset).to(device, DTYPES[dtype])
            millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
            forms = {
                f"{height}×{width}, {f'T = {length}' if length else 'step'}": (length, (height, width))
                for height, width in sizes
                for length in (0, *lengths)
            }
            steps = {name: partial(measure_form, model, *form, device, seconds) for name, form in forms.items()}
            for (_, size), row in zip(forms.values(), in_steps(f"{preset}, {dtype}", steps), strict=True):
                about = {"preset": preset, "model_input": list(size), "dtype": dtype, "parameters": millions}
                rows.append(about | row)
    return rows
