"""Frames a second from file to tracks and actions, by every backend in turn; and each backend's step alone."""

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ..processing.detection_kinetrack import objects_of
from ..processing.graphs.graph_modules import MAX_OBJECTS
from .benchmark_clock import time_in_turns
from .benchmark_videos import EXAMPLE_VIDEO, write_resized

STAGES = ("decode", "preprocess", "model", "association")
# Model inputs (height, width) and the file that each is measured on; None is the example itself.
SPEED_RUNS = {"example": ((384, 512), None), "16:9": ((352, 640), (720, 1280))}
_PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def installed_backends() -> list[str]:
    """PyTorch, and whatever else is installed; `torch.compile` takes minutes to start and has to be asked for."""
    found = [name for name, packages in _PACKAGES.items() if all(find_spec(package) for package in packages)]
    return ["torch", *found]


def measure_speed(networks: dict[str, tuple], folder: Path, repeats: int, allow_untrained: bool = False) -> list[dict]:
    """Frames per second from file to tracks and actions: every frame through the encoder, nothing drawn.

    Args:
        networks: models with both heads and their video processors, by what runs them.
        folder: where the 16:9 file is made.
        repeats: runs of each video by each, in turns; medians are reported.
        allow_untrained: measures a model without trained weights.

    Returns:
        For each of `SPEED_RUNS` and each of `networks`: frames, frames per second, milliseconds from one result to the
        next (`latency_ms`), and milliseconds per frame by stage, in the mean and as percentiles.
    """
    from ..processing.session_kinetrack import KineTrackSession

    rows = []
    for name, (size, video_size) in SPEED_RUNS.items():
        video = EXAMPLE_VIDEO
        if video_size is not None:
            video = folder / f"resized-{video_size[1]}x{video_size[0]}.mp4"
            write_resized(EXAMPLE_VIDEO, video, video_size)
        sessions = {
            backend: KineTrackSession(model, processor, size=size, allow_untrained=allow_untrained)
            for backend, (model, processor) in networks.items()
        }
        for session in sessions.values():
            for _ in itertools.islice(session.run(str(video)), 10):  # warm-up
                pass
        runs = defaultdict(list)
        for _ in range(repeats):
            for backend, session in sessions.items():
                runs[backend].append(_run(session, video))
        rows += [_speed_row(name, size, backend, runs[backend]) for backend in networks]
    return rows


def _run(session, video: Path) -> dict:
    """One run of a session over a video, from its first frame."""
    session.reset()
    spent, frames, times = {stage: [] for stage in STAGES}, 0, []
    start, cpu = time.perf_counter(), time.process_time()
    last = start
    for result in session.run(str(video)):
        frames += 1
        for stage in STAGES:
            spent[stage].append(1000 * result.timings[stage])
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return {
        "frames": frames,
        "rate": frames / (time.perf_counter() - start),
        "cpu": 1000 * (time.process_time() - cpu) / frames,
        "times": times,
        "stages": spent,
    }


def _speed_row(name: str, size: tuple[int, int], backend: str, runs: list[dict]) -> dict:
    rates, times = [run["rate"] for run in runs], 1000 * np.concatenate([run["times"] for run in runs])
    stages = {stage: [run["stages"][stage] for run in runs] for stage in STAGES}
    return {
        "video": name,
        "model_input": list(size),
        "backend": backend,
        "frames": runs[0]["frames"],
        "frames_per_second": median(rates),
        "slowest_and_fastest": [min(rates), max(rates)],
        "latency_ms": _percentiles(times),
        "cpu_ms": median(run["cpu"] for run in runs),
        "milliseconds": {stage: median(map(np.mean, spent)) for stage, spent in stages.items()},
        "stage_ms": {stage: _percentiles(np.concatenate(spent)) for stage, spent in stages.items()},
    }


def _percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    return {name: float(np.percentile(milliseconds, share)) for name, share in (("p50", 50), ("p95", 95))}


def measure_backends(
    runners: dict[str, Any], sizes: Sequence[tuple[int, int]] = ((352, 640),), seconds: float = 10.0
) -> list[dict]:
    """The step alone, by every backend in turn on the same frame and state, and how far outputs are from PyTorch's.

    Args:
        runners: the same model with heads by what runs it; "torch" has to be among them.
        sizes: (height, width) of the model input.
        seconds: to spend on a size.

    Returns:
        Rows with `model_input`, `backend`, `ms` (a `Timing`), and `difference`, see `_largest_difference`.
    """
    rows = []
    for size in sizes:
        frame, mask = torch.randn(1, 1, 3, *size), torch.ones(1, *size, dtype=torch.bool)

        def run(runner, frame=frame, mask=mask):
            with torch.inference_mode():
                return runner(frame, pixel_mask=mask, state=runner.initial_state(1, *frame.shape[-2:]))

        found = {name: _said(run(runner), runner, mask) for name, runner in runners.items()}
        times = time_in_turns({name: lambda r=runner, run=run: run(r) for name, runner in runners.items()}, seconds)
        for name in runners:
            worst = _largest_difference(found[name], found["torch"])
            rows.append({"model_input": list(size), "backend": name, "ms": times[name].as_dict(), "difference": worst})
    return rows


def _said(output, model, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is compared: features, actions and objects; PyTorch's of its maps."""
    objects = getattr(output, "objects", None)
    if objects is None:
        maps = (output.heatmap_logits[:, 0], output.distances[:, 0], output.embeddings[:, 0])
        objects = objects_of(*maps, model.valid_cells(mask), model.config.output_stride, MAX_OBJECTS)
    return {"logits": output.logits, "features": output.last_hidden_state, **objects}


def _largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Of any number; of scores in their order, if not the same objects were found, which then cannot be compared."""
    same = (first["scores"] - second["scores"]).abs().max() < 1e-3
    pairs = [(first[name], second[name]) for name in first if same or name in ("logits", "features")]
    if not same:
        pairs.append(tuple(said["scores"].sort(-1).values for said in (first, second)))
    return max(float((one - other).abs().max()) for one, other in pairs)


def measure_drawing(video: Path = EXAMPLE_VIDEO, objects: int = 10) -> dict:
    """Milliseconds that drawing takes for a frame of the annotated video with `objects` tracks; without encoding it."""
    from ..processing.decoding_kinetrack import iter_video_frames
    from ..processing.drawing import FrameAnnotator
    from ..processing.session_kinetrack import KineTrackFrameResult

    frame = next(iter(iter_video_frames(video))).image
    height, width = frame.shape[:2]
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 0), (width - 60, height - 120), (objects, 2))
    result = KineTrackFrameResult(
        frame=frame,
        frame_index=0,
        time=0.0,
        height=height,
        width=width,
        track_ids=np.arange(1, objects + 1),
        boxes=np.concatenate([corners, corners + (60, 120)], 1).astype(np.float32),
        scores=np.full(objects, 0.9, np.float32),
        labels=np.zeros(objects, np.int64),
    )
    annotator = FrameAnnotator(height, width, frame_rate=10.0, action_names=None, action_threshold=0.0, group_names={})
    times = time_in_turns({"drawing": lambda: annotator.annotate(frame, result)}, seconds=2.0)
    return {"objects": objects, "size": [height, width], "ms": times["drawing"].as_dict()}
