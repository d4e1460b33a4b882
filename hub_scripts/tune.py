"""Searches the association's settings on the dev list, without touching the model.

The model runs once over the sequences and its detections are kept; then Optuna's TPE sampler (arXiv 2304.11127) tries
settings of `KineTracker` on them. The best go into `config.json`, where every session picks them up.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from ..processing.loading import load_model
from ..processing.session_kinetrack import tracker_settings
from ..processing.tracking_kinetrack import KineTracker
from .atomic_files import update_json_atomically
from .detection_cache import (
    FLOOR,
    SequenceDetections,
    detect_sequence,
    load_detections,
    save_detections,
    track_detections,
)
from .evaluate import person_label
from .evaluation_items import Sequence, check_names, check_sequences, list_items, read_sequence_info

OBJECTIVE = ("HOTA", "MOTA", "IDF1")
CACHE = Path("~/.cache/kinetrack/detections")


def tune(
    model: str | os.PathLike,
    data: str | os.PathLike,
    trials: int = 150,
    seed: int = 0,
    *,
    split: str = "dev",
    cache: str | os.PathLike | None = None,
    write: bool = True,
) -> dict:
    """Finds association settings for a model folder; only `config.json` changes.

    Args:
        model: folder of a trained model.
        data: root of the data with `mot/`, see `hub_scripts/data`.
        trials: settings tried; the present ones are the first.
        seed: another seed, another search.
        split: the list whose sequences are searched on; not the one whose figures are reported.
        cache: folder for detections, `CACHE` by default.
        write: False leaves `config.json` as it is.

    Returns:
        `detection_threshold` and `tracker_settings` as chosen, `before` and `after` scores per sequence and combined,
        and the `objective` at both: the mean of HOTA, MOTA and IDF1, averaged over the sequences.

    Raises:
        FileNotFoundError: no model or no data there.
        ValueError: the list names no sequence that is there or two of one name, or fewer than one trial is asked for.
    """
    import optuna

    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}.")
    folder = model_folder(model)
    sequences = [item for item in list_items(data, split) if isinstance(item, Sequence)]
    if not sequences:
        raise ValueError(f"The {split} list names no tracking sequence that is below {data}.")
    check_sequences(sequences)
    network, processor = load_model(folder)
    person, config = person_label(network.config), network.config
    detected = _detections(network, processor, sequences, folder, Path(cache or CACHE).expanduser())

    def score(settings: dict) -> tuple[float, dict]:
        found = score_settings(detected, settings, person)
        return _objective(found), found

    present = session_settings(config.detection_threshold, getattr(config, "tracker_settings", None))
    before = score(present)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial(_as_trial(present))
    study.optimize(lambda trial: score(draw_settings(trial))[0], n_trials=trials)
    best = draw_settings(optuna.trial.FixedTrial(study.best_params))
    after = score(best)
    if after[0] <= before[0]:  # the present settings may lie outside what is searched
        best, after = present, before
    chosen = {
        "detection_threshold": best["high_threshold"],
        "tracker_settings": {name: value for name, value in best.items() if name != "high_threshold"},
    }
    if write:
        update_json_atomically(folder / "config.json", chosen)
    return chosen | {
        "trials": trials,
        "seed": seed,
        "sequences": [sequence.folder.name for sequence in sequences],
        "objective": {"before": before[0], "after": after[0]},
        "before": before[1],
        "after": after[1],
    }


def model_folder(model: str | os.PathLike) -> Path:
    """The folder of a model, whose `config.json` is to be changed.

    Raises:
        FileNotFoundError: it is none.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no folder of a model: it has no config.json. Give a folder, not a name.")
    return folder


def draw_settings(trial) -> dict:
    """The search space: settings of `KineTracker` as an Optuna trial suggests them, rounded to what is written."""
    high = round(trial.suggest_float("high_threshold", 0.2, 0.7), 3)
    return {
        "high_threshold": high,
        "low_threshold": max(FLOOR, round(trial.suggest_float("low_share", 0.1, 1.0) * high, 3)),
        "new_track_threshold": round(min(0.95, high + trial.suggest_float("new_track_margin", 0.0, 0.3)), 3),
        "min_hits": trial.suggest_int("min_hits", 1, 4),
        "min_similarity": round(trial.suggest_float("min_similarity", 0.02, 0.4), 3),
        "min_iou_low": round(trial.suggest_float("min_iou_low", 0.2, 0.7), 3),
        "appearance_weight": round(trial.suggest_float("appearance_weight", 0.0, 0.7), 3),
        "max_appearance_distance": round(trial.suggest_float("max_appearance_distance", 0.05, 0.6), 3),
        "embedding_momentum": round(trial.suggest_float("embedding_momentum", 0.7, 0.98), 3),
        "max_lost_seconds": round(trial.suggest_float("max_lost_seconds", 0.5, 4.0), 2),
        "max_unsure_seconds": round(trial.suggest_float("max_unsure_seconds", 0.2, 4.0), 2),
    }


def session_settings(threshold: float, tuned: dict | None) -> dict:
    """The settings a session gives its tracker, with the tracker's own defaults where it says nothing."""
    tracker = KineTracker(**tracker_settings(threshold, tuned))
    names = ("high_threshold", "low_threshold", "new_track_threshold", "min_hits", "min_similarity", "min_iou_low")
    names += ("appearance_weight", "max_appearance_distance", "embedding_momentum", "max_lost_seconds")
    names += ("max_unsure_seconds",)
    return {name: getattr(tracker, name) for name in names}


def score_settings(detected: list[SequenceDetections], settings: dict, person: int = 0) -> dict:
    """TrackEval's scores of kept detections under some settings, per sequence and `COMBINED`."""
    import warnings

    from .metrics.mot_metrics import score_tracks

    check_names([item.sequence for item in detected])
    sequences = {item.sequence.folder.name: item.sequence for item in detected}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some settings are so strict that nothing is tracked
        return score_tracks(
            {item.sequence.folder.name: track_detections(item, settings, person) for item in detected},
            {name: sequence.folder for name, sequence in sequences.items()},
            frames={name: sequence.part for name, sequence in sequences.items() if sequence.part},
        )


def _objective(scores: dict) -> float:
    rows = [row for name, row in scores.items() if name != "COMBINED"]
    return float(np.mean([[row[key] for key in OBJECTIVE] for row in rows]))


def _as_trial(settings: dict) -> dict:
    """Settings as the parameters that `draw_settings` asks for, as near as its ranges allow."""
    high = float(np.clip(settings["high_threshold"], 0.2, 0.7))
    direct = {name: settings[name] for name in ("min_hits", "min_similarity", "min_iou_low", "appearance_weight")}
    direct |= {name: settings[name] for name in ("max_appearance_distance", "embedding_momentum", "max_lost_seconds")}
    direct["max_unsure_seconds"] = settings["max_unsure_seconds"]
    return direct | {
        "high_threshold": high,
        "low_share": float(np.clip(settings["low_threshold"] / high, 0.1, 1.0)),
        "new_track_margin": float(np.clip(settings["new_track_threshold"] - high, 0.0, 0.3)),
    }


def _detections(network, processor, sequences, folder: Path, cache: Path) -> list[SequenceDetections]:
    """From the cache if this very model has run over these very frames before."""
    key = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        key.update(file.read_bytes())
    shape = {name: value for name, value in network.config.to_dict().items() if name not in _ASSOCIATION}
    key.update(json.dumps([shape, processor.to_dict()], sort_keys=True, default=str).encode())
    for sequence in sequences:
        info = read_sequence_info(sequence.folder)
        key.update(f"{sequence.folder.resolve()}{sequence.part}{sorted(info.items())}".encode())
    file = cache / f"{key.hexdigest()[:24]}.npz"
    if not file.is_file():
        save_detections([detect_sequence(network, processor, sequence) for sequence in sequences], file)
    return load_detections(sequences, file)


_ASSOCIATION = ("detection_threshold", "tracker_settings", "action_temperature", "action_threshold")
