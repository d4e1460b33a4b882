"""Temperature and thresholds: right on data whose answer is known."""

import json
import shutil

import numpy as np
import pytest
from kinetrack.hub_scripts import calibrate as calibration
from kinetrack.hub_scripts.calibrate import calibrate, fit_temperature, precision_threshold
from scipy.special import log_softmax


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_overconfident_logits_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    honest = np.exp(log_softmax(logits, axis=-1))
    targets = np.array([rng.choice(5, p=row) for row in honest])
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.08)


def test_threshold_is_the_lowest_that_keeps_the_precision():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    probabilities = np.stack([confidence, 1 - confidence - 0.01, np.full(5, 0.01)], axis=1)
    targets = np.array([0, 0, 1, 0, 2])  # right, right, wrong, right, wrong
    threshold, answered = precision_threshold(probabilities, targets, 0.75)
    assert (threshold, answered) == (0.6, 0.8)


def test_threshold_where_nothing_is_precise_enough_keeps_only_the_surest():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert precision_threshold(probabilities, np.array([1, 1]), 0.5) == (0.9, 0.5)


def test_only_what_belongs_to_the_task_is_changed(model_folder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    before = json.loads((folder / "config.json").read_text())
    probabilities = np.full((4, len(before["id2label"])), 0.01)
    probabilities[:, 0] = 0.9, 0.8, 0.7, 0.6
    monkeypatch.setattr(calibration, "_dev_predictions", lambda *_: (np.log(probabilities), np.array([0, 0, 0, 1])))
    found = calibrate(folder, tmp_path, precision=0.9, task="actions")
    after = json.loads((folder / "config.json").read_text())
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"action_temperature", "action_threshold"} and "dev_tracking" not in found
    assert found["dev_answered"] == 0.75 and found["dev_precision"] == 0.9
    assert found["action_threshold"] == after["action_threshold"]


def test_unknown_task_is_refused(model_folder, tmp_path):
    with pytest.raises(ValueError, match="must be one of both, actions, tracking"):
        calibrate(model_folder, tmp_path, task="counting")


def test_what_cannot_be_calibrated_is_said_before_anything_runs(model_folder, data_root, monkeypatch):
    with pytest.raises(FileNotFoundError, match="kinetrack-nano is no folder of a model.*not a name"):
        calibrate("kinetrack-nano", data_root)
    monkeypatch.setattr(calibration, "read_split", lambda part: ["actions/jhmdb/train/golf/clip.mp4"])
    with pytest.raises(
        ValueError, match="golf/clip.mp4 is on the dev list; the model has no class 'golf' but walk, run"
    ):
        calibrate(model_folder, data_root, task="actions")
