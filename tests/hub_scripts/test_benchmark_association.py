"""The association benchmark: both trackers see the same detections, and the report says what was measured."""

import json
import sys

import numpy as np
import pytest
from kinetrack.processing.tracking_kinetrack import KineTracker

pytest.importorskip("trackers")
pytest.importorskip("trackeval")
pytest.importorskip("evaluate")

from kinetrack.hub_scripts import benchmark_association as benchmark  # noqa: E402


@pytest.fixture
def root(tmp_path):
    """One training and one validation sequence of two walkers; scores in per cent in one, as shares in the other."""
    for part, name, scale in (("train", "A", 100), ("val", "B", 1)):
        folder = tmp_path / part / name
        boxes = [(t, i, f"{20 + 5 * t},{150 * i},40,90") for t in range(1, 31) for i in (1, 2)]
        truth = [f"{t},{i},{box},1,-1,-1,-1\n" for t, i, box in boxes]
        seen = [f"{t},-1,{box},{1.2 * scale if t == 3 and scale > 1 else 0.9 * scale}\n" for t, _, box in boxes]
        for kind, lines in (("gt", truth), ("det", seen)):
            (folder / kind).mkdir(parents=True)
            (folder / kind / f"{kind}.txt").write_text("".join(lines))
        (folder / "seqinfo.ini").write_text(f"[Sequence]\nname={name}\nframeRate=10\nseqLength=30\n")
    return tmp_path


def test_scores_in_per_cent_become_shares(root):
    read = benchmark.read_public_detections(root / "train" / "A")
    assert read.frame_rate == 10 and len(read.frames) == 30
    boxes, scores = read.frames[0]
    np.testing.assert_array_equal(boxes[0], [25, 150, 65, 240])
    np.testing.assert_allclose(scores, [0.9, 0.9])
    assert read.frames[2][1].max() == 1.0


@pytest.mark.parametrize("name", benchmark.STEPPERS)
def test_both_trackers_follow_walkers_without_a_switch(root, name):
    sequence = benchmark.read_public_detections(root / "train" / "A")
    scores = benchmark.score_tracker(benchmark.STEPPERS[name], [sequence])["A"]
    assert scores["IDSW"] == 0 and scores["MOTA"] > 90


@pytest.mark.parametrize("name", benchmark.STEPPERS)
def test_every_knob_reaches_both_trackers(root, name):
    sequence = benchmark.read_public_detections(root / "train" / "A")
    usual = {"lost_seconds": 1.0, "new_track": 0.5, "min_iou": 0.2, "high": 0.5, "min_hits": 2}
    rows = benchmark.track_sequence(benchmark.STEPPERS[name], sequence, usual)
    never = benchmark.track_sequence(benchmark.STEPPERS[name], sequence, usual | {"new_track": 1.1, "high": 1.05})
    late = benchmark.track_sequence(benchmark.STEPPERS[name], sequence, usual | {"min_hits": 4})
    assert len(never) == 0 and len(rows) > 50
    # ByteTrack counts differently in the first frame; both report later when more sightings are asked for.
    assert late[late[:, 0] > 1][:, 0].min() >= rows[rows[:, 0] > 1][:, 0].min()


def test_prints_and_writes_everything(root, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "TRAIN", ("A",))
    monkeypatch.setattr(benchmark, "VALIDATION", ("B",))
    monkeypatch.setattr(benchmark, "time_trackers", lambda count: {"KineTracker": 0.5 * count, "ByteTrack": 1.0})
    output = root / "report.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--data", str(root), "--draws", "2", "--output", str(output)])
    benchmark.main()
    printed = capsys.readouterr().out
    for words in ("| B | KineTracker, defaults |", "| B | ByteTrack, tuned |", "| 100 | 50.00", "Tuned KineTracker:"):
        assert words in printed
    assert set(json.loads(output.read_text())) == {"scores", "knobs", "milliseconds"}


def test_timing_covers_both_trackers():
    times = benchmark.time_trackers(10, frames=10, rounds=1)
    assert set(times) == {*benchmark.STEPPERS, "KineTracker + 128-d embeddings"}
    assert all(0 < value < 1000 for value in times.values())


def test_defaults_are_the_trackers_own(root):
    step = benchmark.kinetrack_stepper(10.0, None)
    plain = KineTracker(frame_rate=10.0)
    made = next(cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, KineTracker))
    assert vars(made).keys() == vars(plain).keys()
    assert all(vars(made)[key] == vars(plain)[key] for key in vars(plain) if not key.startswith("_"))
