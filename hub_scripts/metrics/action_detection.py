"""Frame-mAP and video-mAP of action detection: who does what, where and when.

Every detected person has one score a class, p(person) · p(action | region), and every class is ranked by itself over
all frames (frame-mAP) or all tubes (video-mAP), as for JHMDB (Gkioxari and Malik, arXiv 1411.6031). Somebody in the
background whom the data do not label is therefore a false positive of the class he is given: the protocol says so.
"""

from dataclasses import dataclass

import numpy as np

from .average_precision import average_precision, match_by_score, precision_recall


@dataclass
class DetectedActions:
    """What was detected in one clip, N boxes in all.

    Attributes:
        frame: (N,) number of the frame, from 0.
        track_id: (N,) identity; boxes of one identity are a tube, at most one a frame.
        xyxy: (N, 4) pixels.
        scores: (N, C) one score a class.
    """

    frame: np.ndarray
    track_id: np.ndarray
    xyxy: np.ndarray
    scores: np.ndarray


@dataclass
class LabelledActor:
    """The truth about one clip.

    Attributes:
        xyxy: (frames, 4) pixels, NaN in frames without a box.
        label: class number.
    """

    xyxy: np.ndarray
    label: int


def score_action_detection(
    detected: list[DetectedActions], truth: list[LabelledActor], names: list[str], threshold: float = 0.5
) -> dict:
    """Average precision by class and its mean over the classes that occur, per frame and per tube.

    The overlap of two tubes is the sum of the IoU of their boxes over the frames that both have, over the number of
    frames that either has (temporal IoU times mean spatial IoU). A tube's score is the mean over its boxes.

    Args:
        detected: by clip.
        truth: by clip, one actor each.
        names: the C classes.
        threshold: overlap of a hit.

    Returns:
        `frame_map` and `video_map` between 0 and 1, `frame_ap` and `video_ap` by class name, `threshold`, `frames`
        and `clips` with a labelled actor, and `recall`, the share of actors' boxes that any detection overlaps enough,
        whatever its class; `curves`: by class name, (precision, recall) of the frames as lists of at most 100 points.

    Raises:
        ValueError: lists of different lengths, or no labelled actor.
    """
    if len(detected) != len(truth):
        raise ValueError(f"Detections of {len(detected)} clips, truth of {len(truth)}.")
    frames = [_frame_overlaps(found, actor) for found, actor in zip(detected, truth, strict=True)]  # (N,) each
    tubes = [_tubes(found) for found in detected]
    tube_overlaps = [
        np.array([_tube_overlap(found, rows, actor) for rows in group])
        for found, group, actor in zip(detected, tubes, truth, strict=True)
    ]
    tube_scores = [
        np.stack([found.scores[rows].mean(0) for rows in group]) if group else np.zeros((0, len(names)))
        for found, group in zip(detected, tubes, strict=True)
    ]
    labels = np.array([actor.label for actor in truth])
    present = [int(np.isfinite(actor.xyxy).all(1).sum()) for actor in truth]
    if not sum(present):
        raise ValueError("No clip has a labelled actor's box.")
    frame_ap, video_ap, curves = {}, {}, {}
    for label in np.unique(labels):
        name = names[label]
        scores = np.concatenate([found.scores[:, label] for found in detected])
        hits = np.concatenate(
            [
                _frame_hits(found, overlap, label, threshold) if actor.label == label else np.zeros(len(overlap), bool)
                for found, overlap, actor in zip(detected, frames, truth, strict=True)
            ]
        )
        positives = sum(count for count, actor in zip(present, truth, strict=True) if actor.label == label)
        frame_ap[name] = average_precision(scores, hits, positives)
        curves[name] = _thinned(*precision_recall(scores, hits, positives))
        ranked = np.concatenate([group[:, label] for group in tube_scores])
        hits = np.concatenate(
            [
                match_by_score(group[:, label], overlap[:, None], threshold)
                if actor.label == label
                else np.zeros(len(overlap), bool)
                for group, overlap, actor in zip(tube_scores, tube_overlaps, truth, strict=True)
            ]
        )
        video_ap[name] = average_precision(ranked, hits, int((labels == label).sum()))
    reached = sum(
        len(np.unique(found.frame[overlap >= threshold])) for found, overlap in zip(detected, frames, strict=True)
    )
    return {
        "frame_map": float(np.mean(list(frame_ap.values()))),
        "video_map": float(np.mean(list(video_ap.values()))),
        "threshold": threshold,
        "recall": reached / sum(present),
        "frames": sum(present),
        "clips": len(truth),
        "detections": int(sum(len(found.frame) for found in detected)),
        "frame_ap": frame_ap,
        "video_ap": video_ap,
        "curves": curves,
    }


def _frame_overlaps(found: DetectedActions, actor: LabelledActor) -> np.ndarray:
    """(N,) IoU of every detected box with the actor's box in its frame, 0 where there is none."""
    inside = found.frame < len(actor.xyxy)
    boxes = np.full((len(found.frame), 4), np.nan)
    boxes[inside] = actor.xyxy[found.frame[inside]]
    return _paired_iou(found.xyxy, boxes)


def _frame_hits(found: DetectedActions, overlap: np.ndarray, label: int, threshold: float) -> np.ndarray:
    hits = np.zeros(len(overlap), bool)
    for frame in np.unique(found.frame):
        rows = np.flatnonzero(found.frame == frame)
        hits[rows] = match_by_score(found.scores[rows, label], overlap[rows, None], threshold)
    return hits


def _tubes(found: DetectedActions) -> list[np.ndarray]:
    """The rows of every identity."""
    return [np.flatnonzero(found.track_id == identity) for identity in np.unique(found.track_id)]


def _tube_overlap(found: DetectedActions, rows: np.ndarray, actor: LabelledActor) -> float:
    theirs = set(np.flatnonzero(np.isfinite(actor.xyxy).all(1)).tolist())
    either = len(theirs | set(found.frame[rows].tolist()))
    part = DetectedActions(found.frame[rows], found.track_id[rows], found.xyxy[rows], found.scores[rows])
    return float(_frame_overlaps(part, actor).sum()) / either if either else 0.0


def _paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) IoU of boxes row by row; 0 where one is NaN."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    areas = sum(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (first, second))
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(common / np.maximum(areas - common, 1e-9))


def _thinned(precision: np.ndarray, recall: np.ndarray, points: int = 100) -> tuple[list[float], list[float]]:
    """At most so many points of a curve, for a figure."""
    chosen = np.unique(np.linspace(0, len(precision) - 1, min(points, len(precision))).round().astype(int))
    return precision[chosen].round(4).tolist(), recall[chosen].round(4).tolist()
