"""Boxes per frame: MOTChallenge ground truth, an actor's boxes, machine-made boxes of people.

Boxes are kept at full extent (amodal): a person half outside the picture or behind a pillar has the box of the whole
person, as the MOTChallenge files give it.
"""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PEDESTRIAN = 1
# MOT17 and MOT20: person on vehicle, static person, distractor, reflection. Neither person nor background.
DISTRACTORS = (2, 7, 8, 12)


@dataclass
class FrameBoxes:
    """All boxes of a video, sorted by frame.

    Attributes:
        frame: `(N,)` frame number from 0.
        xyxy: `(N, 4)` corners in pixels of the video.
        track_id: `(N,)` identity, -1 for unknown.
        ignore: `(N,)` neither a positive nor background.
        weight: `(N,)` how much a positive counts.
        class_label: `(N,)` index of the object class; 0 is a person.
    """

    frame: np.ndarray
    xyxy: np.ndarray
    track_id: np.ndarray
    ignore: np.ndarray
    weight: np.ndarray
    class_label: np.ndarray

    def __post_init__(self):
        order = np.argsort(self.frame, kind="stable")
        for name in ("frame", "xyxy", "track_id", "ignore", "weight", "class_label"):
            setattr(self, name, getattr(self, name)[order])

    def at(self, frame: int) -> "FrameBoxes":
        """The rows of one frame, which may be none."""
        rows = slice(*np.searchsorted(self.frame, (frame, frame + 1)))
        return FrameBoxes(
            self.frame[rows],
            self.xyxy[rows],
            self.track_id[rows],
            self.ignore[rows],
            self.weight[rows],
            self.class_label[rows],
        )


def identity_key(sequence: str, track_id: np.ndarray) -> np.ndarray:
    """Makes identities unique across sequences, datasets and processes; negative ones become -1.

    Args:
        sequence: Name of the sequence.
        track_id: `(N,)` identities within it, below 2**24.
    """
    keys = (np.int64(zlib.crc32(sequence.encode())) << 24) + track_id.astype(np.int64)
    return np.where(track_id < 0, -1, keys)


def read_rows(path: str | os.PathLike) -> np.ndarray:
    """Reads comma separated numbers into `(N, columns)`; an empty file gives no rows."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No box file {path}.")
    if not path.read_text().strip():
        return np.zeros((0, 10))
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected lines `frame,id,x,y,w,h,...` of numbers; {error}") from None


def _read_marked_rows(path: str | os.PathLike, mark: str) -> np.ndarray:
    """Rows that have at least seven columns, of which the seventh is `mark`."""
    rows = read_rows(path)
    if rows.shape[1] < 7:
        raise ValueError(f"{path}: expected at least 7 columns (frame, id, x, y, w, h, {mark}), got {rows.shape[1]}.")
    return rows


def _corners(rows: np.ndarray) -> np.ndarray:
    return np.concatenate((rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]), axis=1).astype(np.float32)


def read_mot_ground_truth(
    path: str | os.PathLike,
    sequence: str,
    min_visibility: float = 0.15,
    class_numbers: dict[int, int] | None = None,
) -> FrameBoxes:
    """Reads `gt.txt` of MOTChallenge.

    Nine columns are the MOT16/17/20 and DanceTrack form (frame, id, x, y, w, h, mark, class, visibility), ten the MOT15
    form, whose last three are world coordinates or -1. In the first, classes 2, 7, 8 and 12 are ignored regions, other
    classes than 1 are background; in both, rows with mark 0 are ignored regions.

    Args:
        path: The file.
        sequence: Name that makes the identities unique.
        min_visibility: Pedestrians seen less than this are ignored: nothing of them can be learned.
        class_numbers: For files with other objects than people: the model's class for each class of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Lines that are not numbers, or too few of them a line.
    """
    rows = _read_marked_rows(path, "mark")
    marked, class_label = rows[:, 6] > 0, np.zeros(len(rows), np.int64)
    if class_numbers is not None and rows.shape[1] >= 8:
        kept = np.isin(rows[:, 7], list(class_numbers))
        class_label[kept] = [class_numbers[int(number)] for number in rows[kept, 7]]
        positive = marked & ((rows[:, 8] >= min_visibility) if rows.shape[1] >= 9 else True)
    elif rows.shape[1] == 9:
        kind = rows[:, 7].astype(int)
        kept = (kind == PEDESTRIAN) | np.isin(kind, DISTRACTORS)
        positive = marked & (kind == PEDESTRIAN) & (rows[:, 8] >= min_visibility)
    else:
        kept, positive = np.ones(len(rows), bool), marked
    rows, positive, class_label = rows[kept], positive[kept], class_label[kept]
    return FrameBoxes(
        frame=rows[:, 0].astype(np.int64) - 1,
        xyxy=_corners(rows),
        track_id=np.where(positive, identity_key(sequence, rows[:, 1]), -1),
        ignore=~positive,
        weight=np.ones(len(rows), np.float32),
        class_label=class_label,
    )


def read_actor_boxes(path: str | os.PathLike, num_frames: int) -> np.ndarray:
    """Reads the labelled actor's box per frame.

    Args:
        path: Lines `frame, id, x, y, w, h, mark, ...`; those with mark 0 do not count.
        num_frames: Number of frames of the video; boxes beyond it do not count.

    Returns:
        `(num_frames, 4)` corners in pixels of the video, NaN where there is no box.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Lines that are not numbers, or too few of them a line.
    """
    rows = _read_marked_rows(path, "mark")
    rows = rows[(rows[:, 0] >= 1) & (rows[:, 0] <= num_frames) & (rows[:, 6] > 0)]
    boxes = np.full((num_frames, 4), np.nan, np.float32)
    boxes[rows[:, 0].astype(int) - 1] = _corners(rows)
    return boxes


def read_people(
    path: str | os.PathLike,
    sequence: str,
    actor: np.ndarray | None = None,
    positive_score: float = 0.5,
    positive_weight: float = 0.5,
    overlap: float = 0.5,
) -> FrameBoxes:
    """Reads machine-made boxes of people and joins the labelled actor to them.

    A detector's boxes are right about half the time at low scores: those from `positive_score` up are positives of
    reduced weight, the rest ignored regions. The actor is a positive of full weight and known identity, and replaces
    what overlaps it; so does a positive the ignored boxes on it.

    Args:
        path: Lines `frame, -1, x, y, w, h, score, ...`.
        sequence: Name that makes the actor's identity unique.
        actor: `(frames, 4)` corners with NaN, from `read_actor_boxes`.
        positive_score: Score from which a box is a positive.
        positive_weight: Weight of such a positive.
        overlap: Intersection over union from which two boxes are taken for one person.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Lines that are not numbers, or too few of them a line.
    """
    rows = _read_marked_rows(path, "score")
    frame, xyxy, score = rows[:, 0].astype(np.int64) - 1, _corners(rows), rows[:, 6]
    ignore = score < positive_score
    kept = np.ones(len(rows), bool)
    for number in np.unique(frame):
        here = np.flatnonzero(frame == number)
        strong, weak = here[~ignore[here]], here[ignore[here]]
        if len(strong) and len(weak):
            kept[weak] = box_iou(xyxy[weak], xyxy[strong]).max(1) < overlap
        if actor is not None and number < len(actor) and np.isfinite(actor[number]).all():
            kept[here] &= box_iou(xyxy[here], actor[number][None])[:, 0] < overlap
    frame, xyxy, ignore = frame[kept], xyxy[kept], ignore[kept]
    track_id, weight = np.full(len(frame), -1), np.full(len(frame), positive_weight, np.float32)
    if actor is not None:
        known = np.flatnonzero(np.isfinite(actor).all(1))
        frame, xyxy = np.concatenate((frame, known)), np.concatenate((xyxy, actor[known]))
        ignore = np.concatenate((ignore, np.zeros(len(known), bool)))
        track_id = np.concatenate((track_id, identity_key(sequence, np.ones(len(known)))))
        weight = np.concatenate((weight, np.ones(len(known), np.float32)))
    return FrameBoxes(frame, xyxy, track_id.astype(np.int64), ignore, weight, np.zeros(len(frame), np.int64))


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: `(N, 4)` and `(M, 4)` corners give `(N, M)`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    area = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (first, second)]
    return common / np.maximum(area[0][:, None] + area[1][None] - common, 1e-9)
