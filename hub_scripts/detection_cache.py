"""A model's detections of whole sequences, kept so that association can be tried out many times at no cost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..processing.session_kinetrack import KineTrackFrameResult, KineTrackSession
from ..processing.tracking_kinetrack import Detections, KineTracker
from .atomic_files import atomic_path
from .evaluation_items import Sequence, sequence_frames

# Below this the tracker never looks, whatever `kinetrack tune` tries.
FLOOR = 0.05


@dataclass(frozen=True)
class SequenceDetections:
    """What a model detects in a sequence.

    Attributes:
        sequence: where the ground truth is.
        times: (frames,) seconds.
        frames: per frame the detections from a score of `FLOOR` on, pixels of the video.
    """

    sequence: Sequence
    times: list[float]
    frames: list[Detections]


class _Listener:
    """Stands in for a session's tracker: keeps what it is given and follows nobody."""

    low_threshold = FLOOR

    def __init__(self):
        self.known_ids = np.zeros(0, np.int64)
        self.heard: list[Detections] = []

    def reset(self) -> None:
        self.heard = []

    def update(self, detections, time=None):
        self.heard.append(detections)
        nobody = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        return KineTracker().update(nobody)


def detect_sequence(
    model,
    processor,
    sequence: Sequence,
    size: tuple[int, int] | None = None,
    on_result: Callable[[KineTrackFrameResult], None] | None = None,
) -> SequenceDetections:
    """Run the stream form of a model over a sequence, without association.

    Args:
        model: with a tracking head.
        processor: the model's.
        sequence: what to run.
        size: (height, width) of the model input, fitted to the video by default.
        on_result: called with what the session says of every frame, which has no tracks.
    """
    session = KineTrackSession(model, processor, task="tracking", size=size)
    session.tracker = listener = _Listener()
    times = []
    for result in session.run(sequence_frames(sequence)):
        times.append(result.time)
        if on_result is not None:
            on_result(result)
    return SequenceDetections(sequence, times, listener.heard)


def track_detections(detected: SequenceDetections, settings: dict, person: int = 0) -> np.ndarray:
    """Associate cached detections.

    Args:
        detected: of one sequence.
        settings: of `KineTracker`.
        person: object class that is reported.

    Returns:
        MOTChallenge rows `(N, 7)`: frame from 1, identity, left, top, width, height, score.
    """
    tracker = KineTracker(**settings)
    first = detected.sequence.part[0] if detected.sequence.part else 1
    rows = [np.zeros((0, 7))]
    for number, (time, detections) in enumerate(zip(detected.times, detected.frames, strict=True), start=first):
        tracks = tracker.update(detections, time)
        people = tracks.class_id == person
        boxes = tracks.xyxy[people].astype(np.float32).astype(np.float64)
        rows.append(
            np.column_stack(
                [
                    np.full(people.sum(), number),
                    tracks.track_id[people],
                    boxes[:, :2],
                    boxes[:, 2:] - boxes[:, :2],
                    tracks.confidence[people],
                ]
            )
        )
    return np.concatenate(rows)


def save_detections(detected: list[SequenceDetections], path: Path) -> None:
    """Write detections to one `.npz` file, whole or not at all."""
    arrays = {}
    for number, item in enumerate(detected):
        counts = [len(frame) for frame in item.frames]
        arrays |= {
            f"{number}/times": np.array(item.times),
            f"{number}/counts": np.array(counts),
            f"{number}/xyxy": np.concatenate([frame.xyxy for frame in item.frames]),
            f"{number}/confidence": np.concatenate([frame.confidence for frame in item.frames]),
            f"{number}/class_id": np.concatenate([frame.class_id for frame in item.frames]),
            f"{number}/embedding": np.concatenate([frame.data["embedding"] for frame in item.frames]),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        np.savez_compressed(partial, **arrays)


def load_detections(sequences: list[Sequence], path: Path) -> list[SequenceDetections]:
    """Read what `save_detections` wrote for these sequences."""
    with np.load(path) as arrays:
        return [_unpack(sequence, arrays, str(number)) for number, sequence in enumerate(sequences)]


def _unpack(sequence: Sequence, arrays, key: str) -> SequenceDetections:
    ends = np.cumsum(arrays[f"{key}/counts"])[:-1]
    columns = [np.split(arrays[f"{key}/{name}"], ends) for name in ("xyxy", "confidence", "class_id", "embedding")]
    frames = [
        Detections(xyxy, score, label, {"embedding": looks}) for xyxy, score, label, looks in zip(*columns, strict=True)
    ]
    return SequenceDetections(sequence, arrays[f"{key}/times"].tolist(), frames)
