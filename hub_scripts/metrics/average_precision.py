"""Average precision of ranked detections, for boxes and for tubes.

The area under the precision-recall curve where precision at a recall is the best at that recall or beyond (all points,
as PASCAL VOC from 2010 on). Libraries compute it for boxes of images alone; tubes want it as well, so the two steps,
who is a hit and the area, are apart here.
"""

import numpy as np


def precision_recall(scores: np.ndarray, hits: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, by falling score; equal scores enter together.

    Args:
        scores: (N,).
        hits: (N,) bool, whether the detection found something that no better one had.
        positives: how much there was to be found.

    Returns:
        Precision and recall, (K,) each, K the number of different scores.

    Raises:
        ValueError: shapes that differ, or nothing to be found.
    """
    scores, hits = np.asarray(scores, np.float64), np.asarray(hits, bool)
    if scores.shape != hits.shape or scores.ndim != 1:
        raise ValueError(f"Expected scores and hits of one shape (N,), got {scores.shape} and {hits.shape}.")
    if positives < 1:
        raise ValueError("There is nothing to be found, so recall has no meaning.")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of each run of equal scores
    return found[last] / (last + 1), found[last] / positives


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Area under the interpolated precision-recall curve, 0 to 1; see `precision_recall`."""
    precision, recall = precision_recall(scores, hits, positives)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def match_by_score(scores: np.ndarray, overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections of one image (or video) are hits.

    By falling score, each detection takes the truth it overlaps most if that reaches the threshold; a truth that is
    taken already makes it a double, which is no hit (the rule of PASCAL VOC).

    Args:
        scores: (N,).
        overlaps: (N, M) with the M truths.
        threshold: overlap from which a detection can be a hit.

    Returns:
        (N,) bool.
    """
    hits = np.zeros(len(scores), bool)
    if not overlaps.size:
        return hits
    taken = np.zeros(overlaps.shape[1], bool)
    for row in np.argsort(-np.asarray(scores), kind="stable"):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= threshold and not taken[best]:
            taken[best] = hits[row] = True
    return hits
