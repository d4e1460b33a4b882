"""Scores of clip classification: top-1, top-5, per class, confusion, calibration."""

import numpy as np


def score_actions(probabilities: np.ndarray, labels: np.ndarray, names: list[str]) -> dict:
    """Score class probabilities of labelled clips.

    Args:
        probabilities: `(N, C)`, rows sum to one.
        labels: `(N,)` class numbers.
        names: the C class names.

    Returns:
        `top1`, `top5` and `mean_class_accuracy` in per cent; `expected_calibration_error` (15 bins of equal width, Guo
        et al.,
        arXiv 1706.04599) between 0 and 1; `per_class` accuracy in per cent of the classes that occur; `confusion`
        `(C, C)` counts, rows are the truth; `clips`.

    Raises:
        ValueError: without clips, or if shapes do not fit.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if not len(labels):
        raise ValueError("No labelled clips to score.")
    if probabilities.shape != (len(labels), len(names)):
        raise ValueError(f"Expected probabilities of shape {(len(labels), len(names))}, got {probabilities.shape}.")
    order = np.argsort(-probabilities, axis=1, kind="stable")  # (N, C)
    hits = order == labels[:, None]
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels, order[:, 0]), 1)
    counts = confusion.sum(axis=1)
    present = np.flatnonzero(counts)
    per_class = {names[c]: 100 * float(confusion[c, c] / counts[c]) for c in present}
    return {
        "top1": 100 * float(hits[:, 0].mean()),
        "top5": 100 * float(hits[:, :5].any(axis=1).mean()),
        "mean_class_accuracy": float(np.mean(list(per_class.values()))),
        "expected_calibration_error": _calibration_error(probabilities.max(axis=1), hits[:, 0]),
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "names": list(names),
        "clips": len(labels),
    }


def _calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over bins of confidence, weighted by their size."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    size = np.bincount(which, minlength=bins)
    gap = np.abs(np.bincount(which, confidence, bins) - np.bincount(which, right, bins))
    return float(gap.sum() / size.sum())
