"""KineTrack beside what people use: in one run, in turns, on the same frames; and the ratios that are our goals."""

import gc
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from .benchmark_baselines import RIVALS, ConvGRU
from .benchmark_clock import in_steps, time_in_turns
from .benchmark_parts import make_preset, measure_form
from .benchmark_report import model_input

FRAMES = 16


def measure_sharing(preset: str, size: tuple[int, int], device: str = "cpu", seconds: float = 10.0) -> dict:
    """One joint model beside the two single-task models of the same size, one after the other, on a clip.

    Returns:
        Timings of `joint`, `actions` and `tracking`, and `ratio`, joint over the sum of the two.
    """
    from ..modeling.modeling_kinetrack import KineTrackForObjectTracking, KineTrackForVideoClassification

    models = {
        "joint": make_preset(preset),
        "actions": make_preset(preset, KineTrackForVideoClassification),
        "tracking": make_preset(preset, KineTrackForObjectTracking),
    }
    clip = torch.randn(1, FRAMES, 3, *size, device=device)
    times = time_in_turns({name: _runner(model.to(device), clip) for name, model in models.items()}, seconds, device)
    ratio = times["joint"].p50 / (times["actions"].p50 + times["tracking"].p50)
    return {"preset": preset, "model_input": list(size), "ms": _dicts(times), "ratio": ratio}


class EncoderAndHeads(nn.Module):
    """A model without propagation and attention: features are pooled evenly and go to the heads as they are.

    Args:
        model: a KineTrack model with both heads.
        differences: whether the differences to the frame before are still added to the features.
    """

    def __init__(self, model, differences: bool = False):
        super().__init__()
        self.encoder, self.action_head, self.tracking_head = (
            model.kinetrack.encoder,
            model.action_head,
            model.tracking_head,
        )
        self.motion = model.kinetrack.motion if differences else None

    def forward(self, frame: torch.Tensor, previous: torch.Tensor | None = None):
        """(1, 3, H, W), and what the differences need of the frame before, to logits and detection maps."""
        features, pyramid, fine, _ = self.encoder(frame)
        if self.motion is not None:
            seen = torch.ones(1, dtype=torch.bool, device=frame.device)
            features = features + self.motion(fine, 1, None, previous, seen)[0]
        valid = torch.ones_like(features[:, :1])  # (N, 1, H/16, W/16)
        logits, _ = self.action_head(features.mean((2, 3)))
        return logits, self.tracking_head(pyramid, features, valid[:, 0] / valid[0].numel(), valid)


def measure_step(preset: str, size: tuple[int, int], device: str = "cpu", seconds: float = 10.0) -> dict:
    """The streaming step beside the same encoder and heads alone.

    Returns:
        Timings of `step`, of `encoder and heads` and of these `with differences`; `ratio`, step over encoder and heads,
        and `ratio_with_differences`, what is left of it once both sides look at the frame before.
    """
    model = make_preset(preset).to(device)
    frame = torch.randn(1, 1, 3, *size, device=device)
    with torch.inference_mode():
        state = model(frame).state
    runs = {
        "step": _runner(model, frame, state=state),
        "encoder and heads": _runner(EncoderAndHeads(model), frame[:, 0]),
        "with differences": _runner(EncoderAndHeads(model, differences=True), frame[:, 0], previous=state.motion),
    }
    times = time_in_turns(runs, seconds, device)
    whole, bare, differing = (times[name].p50 for name in runs)
    ratios = {"ratio": whole / bare, "ratio_with_differences": whole / differing}
    return {"preset": preset, "model_input": list(size), "ms": _dicts(times)} | ratios


def measure_scaling(preset: str, size: tuple[int, int], device: str = "cpu", seconds: float = 10.0) -> dict:
    """Milliseconds a frame of clips of 8 and of 128 frames, and the share of propagation and attention at 16."""
    model = make_preset(preset).to(device)
    clips = {length: torch.randn(1, length, 3, *size, device=device) for length in (8, 128)}
    times = time_in_turns({str(length): _runner(model, clip) for length, clip in clips.items()}, seconds, device)
    form = measure_form(model, FRAMES, size, device, seconds / 2)
    share = (form["parts"]["propagation"] + form["parts"]["attention"]) / form["ms"]["p50"]
    ratio = (times["128"].p50 / 128) / (times["8"].p50 / 8)
    return {"preset": preset, "model_input": list(size), "ms": _dicts(times), "ratio": ratio, "temporal_share": share}


def measure_rival(base, name: str, device: str = "cpu", seconds: float = 20.0, size: int = 224) -> dict:
    """`base` (kinetrack-base) beside a rival, in turns: both on 16 frames of `size`², the rival on its own input too.

    Returns:
        `name`, `input`, `parameters` (millions), `ms` of both (and of the rival's own input), and `ratio`: how many
        times KineTrack is faster at `size`²; None for a rival that takes its own input alone.
    """
    gc.collect()  # what the rival before has left
    make, (frames, height, width) = RIVALS[name]
    rival = make().eval().to(device)
    clip = torch.randn(1, FRAMES, 3, size, size, device=device)
    own = torch.randn(1, frames, 3, height, width, device=device)
    runs: dict[str, Callable] = {"KineTrack": _runner(base, clip), "own input": _runner(rival, own)}
    if (height, width) != (size, size) and name in _TAKES_ANY_SIZE:
        runs["rival"] = _runner(rival, clip)
    times = time_in_turns(runs, seconds, device)
    if (height, width) == (size, size):
        times["rival"] = times["own input"]
    return {
        "name": name,
        "input": [frames, height, width],
        "parameters": sum(parameter.numel() for parameter in rival.parameters()) / 1e6,
        "ms": _dicts(times),
        "ratio": times["rival"].p50 / times["KineTrack"].p50 if "rival" in times else None,
    }


_TAKES_ANY_SIZE = ("R(2+1)D-18",)


def measure_convgru(channels: int = 256, side: int = 14, device: str = "cpu", seconds: float = 20.0) -> dict:
    """One propagation block of this width beside one ConvGRU, forward and backward, on the same maps.

    Returns:
        Timings of one propagation `block` and of the `ConvGRU`, and `ratio`, how many times the block is faster.
    """
    block = make_preset("base", hidden_size=channels).kinetrack.propagation[0].to(device)
    gru = ConvGRU(channels).to(device)
    maps = torch.randn(1, FRAMES, side, side, channels, device=device, requires_grad=True)
    planes = maps.detach().permute(0, 1, 4, 2, 3).contiguous().requires_grad_()
    mask = torch.ones(1, 1, side, side, 1, device=device)

    def forward_backward(run, inputs):
        inputs.grad = None
        run(inputs).sum().backward()

    times = time_in_turns(
        {
            "block": lambda: forward_backward(lambda value: block(value, mask)[0], maps),
            "ConvGRU": lambda: forward_backward(gru, planes),
        },
        seconds,
        device,
    )
    ratio = times["ConvGRU"].p50 / times["block"].p50
    return {"channels": channels, "map": [side, side], "frames": FRAMES, "ms": _dicts(times), "ratio": ratio}


def check_goals(report: dict) -> list[dict]:
    """The ratios that are our goals, as far as the report has them: name, value, the times it is of, limit, met."""
    found = []

    def add(name, value, times, limit, at_most=True):
        met = value <= limit if at_most else value >= limit
        limit = f"{'≤' if at_most else '≥'} {limit}"
        found.append({"name": name, "value": value, "ms": times, "limit": limit, "met": bool(met)})

    for row in report.get("sharing", []):
        joint, actions, tracking = (row["ms"][name]["p50"] for name in ("joint", "actions", "tracking"))
        limit, times = 0.6 if row["preset"] == "base" else 0.7, f"{joint:.0f} / ({actions:.0f} + {tracking:.0f})"
        add(f"joint / sum of single-task models, {row['preset']}", row["ratio"], times, limit)
    for row in report.get("step", []):
        name = f"step / encoder and heads, {row['preset']}, {model_input(row)}"
        add(name, row["ratio"], _two(row, "step", "encoder and heads"), 1.15)
    for row in report.get("scaling", []):
        short, long = (row["ms"][length]["p50"] / int(length) for length in ("8", "128"))
        add(f"propagation and attention in a clip, {row['preset']}", row["temporal_share"], "", 0.10)
        name = f"cost per frame at T = 128 / T = 8, {row['preset']}"
        add(name, row["ratio"], f"{long:.1f} / {short:.1f}", 1.1)
    for row in report.get("rivals", []):
        if row["name"] in ("R(2+1)D-18", "TimeSformer-base"):
            times = _two(row, "rival", "KineTrack")
            add(f"base faster than {row['name']} at 224²", row["ratio"], times, 1.4, at_most=False)
    if "convgru" in report:
        name = "a block of propagation faster than a ConvGRU of its width, both directions"
        times = _two(report["convgru"], "ConvGRU", "block")
        add(name, report["convgru"]["ratio"], times, 5, at_most=False)
    return found


def _two(row: dict, over: str, under: str) -> str:
    return f"{row['ms'][over]['p50']:.1f} / {row['ms'][under]['p50']:.1f}"


def measure_comparisons(
    device: str = "cpu", seconds: float = 20.0, rivals: Sequence[str] = tuple(RIVALS), presets=("nano", "base")
) -> dict:
    """Everything above for both presets, 224², the step also as large as streams are, and what was to be reached."""
    size, streams, report = (224, 224), (352, 640), {}
    for name, measure in (("sharing", measure_sharing), ("scaling", measure_scaling)):
        report[name] = in_steps(name, {preset: partial(measure, preset, size, device, seconds) for preset in presets})
    steps = {
        f"{preset}, {form[0]}×{form[1]}": partial(measure_step, preset, form, device, seconds)
        for preset in presets
        for form in (size, streams)
    }
    report["step"] = in_steps("step", steps)
    report["convgru"] = measure_convgru(device=device, seconds=seconds)
    base = make_preset("base").to(device)
    steps = {name: partial(measure_rival, base, name, device, seconds) for name in rivals}
    report["rivals"] = in_steps("rivals", steps)
    return report | {"goals": check_goals(report)}


def _runner(model, *inputs, **named) -> Callable[[], None]:
    def run():
        with torch.inference_mode():
            model(*inputs, **named)

    return run


def _dicts(times) -> dict:
    return {name: timing.as_dict() for name, timing in times.items()}
