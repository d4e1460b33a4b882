"""Chooses what a model needs beyond its weights, on the dev list: temperature, "uncertain" and detection thresholds."""

import os
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..processing.loading import load_model
from ..processing.session_kinetrack import TASKS, KineTrackSession
from .atomic_files import update_json_atomically
from .data.sources import ACTION_SET
from .data.splits import read_split
from .detection_cache import detect_sequence
from .evaluate import person_label
from .evaluation_items import Sequence, check_sequences, list_items
from .evaluation_runs import Stopwatch, classify_clip
from .tune import model_folder, score_settings, session_settings

DETECTION_THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def calibrate(model: str | os.PathLike, data: str | os.PathLike, precision: float = 0.85, task: str = "both") -> dict:
    """Calibrates a model folder in place; only `config.json` changes.

    The temperature minimises the negative log-likelihood of the dev clips (Guo et al., arXiv 1706.04599). The action
    threshold is the lowest at which `precision` of the dev clips that get an answer get the right one. The detection
    threshold has the best MOTA + IDF1 on the dev sequences; `kinetrack tune` refines it with the tracker's settings.

    Args:
        model: folder of a trained model.
        data: root of the data, see `hub_scripts/data`.
        precision: share of right answers wanted among those above the threshold.
        task: what to calibrate, one of a session's `TASKS`; the rest of the configuration stays as it is.

    Returns:
        The chosen values and the figures they were chosen by.

    Raises:
        FileNotFoundError: no model or no data there.
        ValueError: the dev list names no clips with action labels that the model knows, or no sequences; or an unknown
            task.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {task!r}.")
    folder = model_folder(model)
    network = load_model(folder)
    chosen, figures = {}, {}
    if task != "tracking":
        chosen, figures = _choose_for_actions(*network, Path(data), precision)
    if task != "actions":
        values, found = _choose_for_tracking(*network, Path(data))
        chosen, figures = chosen | values, figures | found
    update_json_atomically(folder / "config.json", chosen)
    return chosen | figures


def _choose_for_actions(network, processor, data: Path, precision: float) -> tuple[dict, dict]:
    """Values for the configuration, and the figures that they were chosen by."""
    network.config.action_temperature = 1.0
    log_probabilities, targets = _dev_predictions(network, processor, data)
    temperature = fit_temperature(log_probabilities, targets)
    probabilities = np.exp(log_softmax(log_probabilities / temperature, axis=-1))
    threshold, answered = precision_threshold(probabilities, targets, precision)
    chosen = {"action_temperature": round(float(temperature), 4), "action_threshold": round(float(threshold), 4)}
    return chosen, {
        "dev_clips": len(targets),
        "dev_top1": float((probabilities.argmax(-1) == targets).mean()),
        "dev_answered": answered,
        "dev_precision": precision,
    }


def _choose_for_tracking(network, processor, data: Path) -> tuple[dict, dict]:
    """As `_choose_for_actions`."""
    sequences = [item for item in list_items(data, "dev") if isinstance(item, Sequence)]
    if not sequences:
        raise ValueError(f"The dev list names no tracking sequence that is below {data}.")
    check_sequences(sequences)
    detected = [detect_sequence(network, processor, sequence) for sequence in sequences]
    person = person_label(network.config)
    scores = {
        candidate: score_settings(detected, session_settings(candidate, None), person)["COMBINED"]
        for candidate in DETECTION_THRESHOLDS
    }
    best = max(scores, key=lambda candidate: scores[candidate]["MOTA"] + scores[candidate]["IDF1"])

    # What was tuned before belongs to another threshold.
    chosen = {"detection_threshold": float(best), "tracker_settings": None}
    return chosen, {"dev_tracking": {str(candidate): found for candidate, found in scores.items()}}


def fit_temperature(log_probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the smallest negative log-likelihood, between 0.1 and 10.

    Shapes: log_probabilities (N, classes) up to a constant a row, targets (N,) -> scalar.
    """

    def likelihood(log_temperature: float) -> float:
        scaled = log_softmax(log_probabilities / np.exp(log_temperature), axis=-1)
        return -scaled[np.arange(len(targets)), targets].mean()

    found = minimize_scalar(likelihood, bounds=(np.log(0.1), np.log(10.0)), method="bounded")
    return float(np.exp(found.x))


def precision_threshold(probabilities: np.ndarray, targets: np.ndarray, precision: float) -> tuple[float, float]:
    """The lowest threshold on the largest probability at which the answers above it reach a precision.

    Args:
        probabilities: (N, classes).
        targets: (N,).
        precision: share of right answers wanted.

    Returns:
        Threshold and share of rows answered; where no threshold reaches it, that of the single surest answer.
    """
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == targets
    order = np.argsort(-confidence)
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision
    count = int(np.flatnonzero(reached).max()) + 1 if reached.any() else 1
    return float(confidence[order[count - 1]]), count / len(order)


def _dev_predictions(network, processor, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (N, classes) and classes (N,) of the dev clips of the primary label group."""
    session = KineTrackSession(network, processor, task="actions")
    index = {name: int(number) for number, name in network.config.id2label.items()}
    rows, targets = [], []
    for item in read_split("dev"):
        if item.startswith(f"actions/{ACTION_SET}/"):
            label = Path(item).parent.name
            if label not in index:
                raise ValueError(f"{item} is on the dev list; the model has no class {label!r} but {', '.join(index)}.")
            rows.append(np.log(np.maximum(classify_clip(session, root / item, Stopwatch())["actions"], 1e-12)))
            targets.append(index[label])
    if not rows:
        raise ValueError(f"The dev list names no clip of actions/{ACTION_SET}; there is nothing to calibrate on.")
    return np.stack(rows), np.array(targets)
