"""8-bit steps: which layers, and what the quantiser looks at."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..processing.decoding_kinetrack import iter_video_frames
from ..processing.graphs.backends import open_engine
from ..processing.session_kinetrack import KineTrackSession
from .data.sources import VIDEO_SUFFIXES

# Frames that the quantiser sees.
CALIBRATION_FRAMES = 300
_FRAMES_OF_A_VIDEO = 25
# Only the encoder: that is where the time is, nothing is carried there, and boxes suffer from a head in 8 bits.
_KEPT = (r"^(?!.*/encoder/).*",)


def quantise_step(model, processor, path: Path, format: str, videos: Sequence[Path]) -> None:
    """Replaces a step's file by one with 8-bit convolutions.

    Args:
        model: from `exportable_copy`.
        processor: the model's.
        path: the step in float32, `.onnx` or `.xml`.
        format: "onnx" or "openvino".
        videos: files, or folders searched for files.

    Raises:
        FileNotFoundError: no video in these places.
        ModuleNotFoundError: the package nncf is missing.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    samples = list(itertools.islice(calibration_steps(model, processor, path, format, videos), CALIBRATION_FRAMES))
    settings = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(samples),
        "ignored_scope": nncf.IgnoredScope(patterns=list(_KEPT), validate=False),
    }
    if format == "openvino":
        import openvino
        from openvino.passes import ConstantFolding, Manager

        from ..processing.graphs.openvino_engine import shared_core

        # Read into memory, for the file is written over.
        floating = shared_core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())
        passes = Manager()
        passes.register_pass(ConstantFolding())  # else the weights of depthwise convolutions would stay in float32
        passes.run_passes(floating)
        quantised = nncf.quantize(floating, nncf.Dataset(samples), **settings)
        openvino.save_model(quantised, path, compress_to_fp16=False)
        return
    import onnx

    onnx.save(nncf.quantize(onnx.load(str(path)), nncf.Dataset(samples), **settings), str(path))


def calibration_steps(model, processor, path: Path, format: str, videos: Sequence[Path]) -> Iterator[dict]:
    """Inputs of the steps of the first frames of videos, each with the state that it had.

    Yields:
        NumPy arrays by the names of the step's inputs.
    """
    from ..processing.graphs.graph_model import AcceleratedModel

    engine = _Recorder(open_engine(path, format))
    accelerated = AcceleratedModel(model, engine, format)
    for video in list_videos(videos):
        session = KineTrackSession(accelerated, processor, allow_untrained=True)
        # Not by `run`, which looks ahead: the last frame recorded would not be that of the last result.
        for frame in itertools.islice(iter_video_frames(video), _FRAMES_OF_A_VIDEO):
            session.look(frame)
            yield engine.last


def list_videos(places: Sequence[Path]) -> list[Path]:
    """Video files to look at: as many of each place, spread over it; all of them where they are few.

    Raises:
        FileNotFoundError: there is none.
    """
    found = []
    wanted = -(-CALIBRATION_FRAMES // _FRAMES_OF_A_VIDEO // len(places))  # of each place
    for place in map(Path, places):
        inside = (file for file in place.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        files = [place] if place.is_file() else sorted(inside)
        found += files[:: max(1, len(files) // wanted)][:wanted]
    if not found:
        endings = ", ".join(sorted(VIDEO_SUFFIXES))
        raise FileNotFoundError(f"There is no video in {', '.join(map(str, places))} ({endings}).")
    return found


class _Recorder:
    """An engine that keeps a copy of what it was given last."""

    def __init__(self, engine):
        self._engine, self.last = engine, {}

    def run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.last = {name: tensor.numpy().copy() for name, tensor in feeds.items()}
        return self._engine.run(feeds)
