"""The search for association settings: the model runs once, the best settings reach every session."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("trackeval")
pytest.importorskip("evaluate")
optuna = pytest.importorskip("optuna")

from kinetrack.hub_scripts import detection_cache, evaluation_items  # noqa: E402
from kinetrack.hub_scripts import tune as search  # noqa: E402
from kinetrack.hub_scripts.detection_cache import (  # noqa: E402
    SequenceDetections,
    detect_sequence,
    load_detections,
    save_detections,
    track_detections,
)
from kinetrack.hub_scripts.evaluation_items import Sequence  # noqa: E402
from kinetrack.hub_scripts.evaluation_runs import Stopwatch, track_sequence  # noqa: E402
from kinetrack.hub_scripts.tune import draw_settings, score_settings, session_settings, tune  # noqa: E402
from kinetrack.processing.loading import load_model  # noqa: E402
from kinetrack.processing.session_kinetrack import KineTrackSession  # noqa: E402
from kinetrack.processing.tracking_kinetrack import Detections  # noqa: E402

LENGTH = 12


def write_truth(folder, rows, length=LENGTH):
    (folder / "gt").mkdir(parents=True)
    (folder / "gt" / "gt.txt").write_text("".join(f"{t},{i},{x},{y},{w},{h},1,-1,-1,-1\n" for t, i, x, y, w, h in rows))
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nframeRate=25\nseqLength={length}\nimWidth=96\nimHeight=64\n"
    )
    return folder


@pytest.fixture
def root(tmp_path, video_path, monkeypatch):
    """A data root whose dev list names one sequence."""
    folder = write_truth(
        tmp_path / "data" / "mot" / "train" / "DEV",
        [(t, i, 10 + 40 * i + t, 10, 16, 16) for t in range(1, LENGTH + 1) for i in (0, 1)],
    )
    (folder / "video.mp4").write_bytes(video_path.read_bytes())
    monkeypatch.setattr(evaluation_items, "read_split", lambda split: ["mot/train/DEV"])
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path, model_folder):
    """A copy of the tiny model, to be changed."""
    return shutil.copytree(model_folder, tmp_path / "model")


def test_kept_detections_give_the_sessions_own_tracks(model_folder, root, tmp_path):
    model, processor = load_model(model_folder)
    sequence = Sequence(root / "mot" / "train" / "DEV", (2, 11))
    save_detections([detect_sequence(model, processor, sequence)], tmp_path / "cache" / "kept.npz")
    kept = load_detections([sequence], tmp_path / "cache" / "kept.npz")[0]
    for settings in ({}, {"min_hits": 3, "min_similarity": 0.3, "low_threshold": 0.2}):
        session = KineTrackSession(model, processor, task="tracking", tracker=settings)
        (expected,), _ = track_sequence(session, sequence, [0], Stopwatch())
        ours = track_detections(kept, session_settings(model.config.detection_threshold, settings))
        assert len(expected) > 10
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_model_runs_once_and_only_the_configuration_changes(folder, root, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    cache = tmp_path / "cache"
    chosen = tune(folder, root, trials=4, cache=cache)
    assert chosen["objective"]["after"] >= chosen["objective"]["before"]
    assert set(chosen["after"]) == {"DEV", "COMBINED"}
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"config.json"} and set(after) == set(before)

    def run(*_):
        raise AssertionError("the detections were there already")

    monkeypatch.setattr(search, "detect_sequence", run)
    again = tune(folder, root, trials=1, cache=cache, write=False)
    assert again["before"] == chosen["after"], "the settings just written are what the next search starts from"
    model, processor = load_model(folder)
    session = KineTrackSession(model, processor, task="tracking")
    assert session.threshold == chosen["detection_threshold"]
    for name, value in chosen["tracker_settings"].items():
        assert getattr(session.tracker, name) == value


def test_the_same_seed_finds_the_same(folder, root, tmp_path):
    content = (folder / "config.json").read_text()
    found = [tune(folder, root, trials=3, seed=5, cache=tmp_path / "cache", write=False) for _ in range(2)]
    assert found[0] == found[1]
    assert (folder / "config.json").read_text() == content


def made_up(folder):
    """Two walkers seen with score 0.6, and a sign seen with score 0.35 in every frame."""
    length = 40
    people = [(t, i, 100 * i + 2 * t, 10, 16, 40) for t in range(1, length + 1) for i in (1, 2)]
    sequence = Sequence(write_truth(folder, people, length))
    frames = []
    for t in range(1, length + 1):
        boxes = [[100 * i + 2 * t, 10, 100 * i + 2 * t + 16, 50] for i in (1, 2)] + [[400, 10, 416, 50]]
        frames.append(Detections(np.array(boxes, float), np.array([0.6, 0.6, 0.35]), np.zeros(3, int), {}))
    return SequenceDetections(sequence, [t / 25 for t in range(length)], frames)


def test_the_search_learns_to_leave_a_sign_alone(tmp_path):
    detected = made_up(tmp_path / "SIGN")
    low, high = session_settings(0.3, None), session_settings(0.5, None)
    assert score_settings([detected], low)["SIGN"]["FP"] == 40
    assert score_settings([detected], high)["SIGN"]["FP"] == 0
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial(search._as_trial(low))
    study.optimize(lambda trial: search._objective(score_settings([detected], draw_settings(trial))), n_trials=12)
    assert study.trials[0].value < 75 and study.best_value > 98


def test_present_settings_survive_the_way_through_a_trial():
    present = session_settings(0.45, {"low_threshold": 0.2, "new_track_threshold": 0.55, "max_lost_seconds": 2.5})
    drawn = draw_settings(optuna.trial.FixedTrial(search._as_trial(present)))
    assert drawn == pytest.approx(present)


def test_nothing_is_tried_that_kept_detections_do_not_reach():
    trial = search._as_trial(session_settings(0.2, {"low_threshold": 0.02}))
    assert draw_settings(optuna.trial.FixedTrial(trial))["low_threshold"] == detection_cache.FLOOR


def test_sequences_of_one_name_are_refused_before_anything_runs(folder, root, tmp_path, monkeypatch):
    shutil.copytree(root / "mot" / "train" / "DEV", root / "mot" / "other" / "DEV")
    monkeypatch.setattr(evaluation_items, "read_split", lambda split: ["mot/train/DEV", "mot/other/DEV"])

    def run(*_):
        raise AssertionError("nothing may run")

    monkeypatch.setattr(search, "detect_sequence", run)
    with pytest.raises(ValueError, match="same folder name, .*train/DEV and .*other/DEV: .*Rename one"):
        tune(folder, root, trials=1, cache=tmp_path / "cache")


def test_scores_of_one_name_do_not_replace_each_other(tmp_path):
    detected = [made_up(tmp_path / site / "SIGN") for site in ("A", "B")]
    with pytest.raises(ValueError, match="same folder name, .*A/SIGN and .*B/SIGN"):
        score_settings(detected, session_settings(0.5, None))


def test_what_cannot_be_searched_is_said(folder, root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Give a folder, not a name"):
        tune("kinetrack-nano", root)
    with pytest.raises(ValueError, match="at least 1"):
        tune(folder, root, trials=0)
    monkeypatch.setattr(evaluation_items, "read_split", lambda split: [])
    with pytest.raises(ValueError, match="names no tracking sequence"):
        tune(folder, root)
    assert json.loads((folder / "config.json").read_text())["detection_threshold"] > detection_cache.FLOOR
