"""Every clip runs once each way, and only better than a guess is better than a guess."""

import json

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.arrow_of_time import ArrowOfTime, BothDirections
from kinetrack.hub_scripts.experiments.clip_training import ClipSet, TrainingSettings, spread_frames, train_classifier
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.features import ClipFeatures
from kinetrack.hub_scripts.experiments.temporal_models import build_classifier
from typer.testing import CliRunner


def test_odd_items_are_even_ones_backwards():
    rng = np.random.default_rng(0)
    middle, coarse = rng.normal(size=(5, 4, 4, 4)).astype(np.float16), rng.normal(size=(5, 6, 2, 2)).astype(np.float16)
    both = BothDirections(ClipSet([ClipFeatures("a.mp4", "a", 3, middle, coarse, np.zeros((5, 4)))]))
    frames = np.arange(5)
    batch = both.batch([(0, frames), (1, frames)], with_middle=True)
    assert len(both) == 2 and both.labels.tolist() == [0, 1] and both.films == ["a", "a"]
    for maps in batch.values():
        assert torch.equal(maps[1], maps[0].flip(0)) and not torch.equal(maps[1], maps[0])


def test_finding_tells_skill_from_guessing():
    def cell(variant, hits):
        return {"variant": variant, "seed": 0, "measures": {"hits": hits, "parameters": 9, "dev_top1": 50.0}}

    results = Results([cell("propagation", "1" * 80), cell("mean", "10" * 40)], {"films": list(range(40))})
    text = " ".join(ArrowOfTime().conclude(results))
    assert (
        "were propagation (100.0 %)" in text and "better than a guess: mean (50.0 %)" in text and "as it must" in text
    )
    assert ArrowOfTime().summarise(results).verdict == "it can use time where time is needed"
    guessing = Results([cell("propagation", "10" * 40), cell("mean", "10" * 40)], {"films": list(range(40))})
    assert "says nothing for or against a module" in " ".join(ArrowOfTime().conclude(guessing))
    assert ArrowOfTime().summarise(guessing).verdict == "left open: no module learned it from these features"
    gru = Results([cell("propagation", "10" * 40), cell("gru", "1" * 80)], {"films": list(range(40))})
    assert ArrowOfTime().summarise(gru).verdict == "not shown that it can use time, where others can"


def test_a_quick_run_scores_both_directions(clips_root, tmp_path):
    options = ["--data", clips_root, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--quick", "--seeds", "1"]
    command = ["experiment", "arrow-of-time", *options, "--variant", "mean", "--variant", "propagation"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    blind = next(cell["measures"]["hits"] for cell in cells if cell["variant"] == "mean")
    assert len(blind) == 4 and blind.count("1") == 2  # the same answer both ways is right once
    assert (tmp_path / "out" / "arrow.png").is_file()


def ramps(count: int, seed: int) -> BothDirections:
    """Clips that are still but for one direction of feature space, along which they move from one end to the other."""
    rng, ramp = np.random.default_rng(seed), np.linspace(-1, 1, 16)[:, None, None, None]
    slope = np.random.default_rng(9).normal(size=(1, 12, 1, 1))
    clips = []
    for number in range(count):
        coarse = (rng.normal(size=(1, 12, 2, 2)) + ramp * slope).astype(np.float16)
        middle = np.zeros((16, 4, 4, 4), np.float16)
        clips.append(ClipFeatures(f"{number}.mp4", str(number), 0, middle, coarse, np.zeros((16, 4))))
    return BothDirections(ClipSet(clips))


@pytest.mark.parametrize(("name", "sees_time"), [("mean", False), ("gru", True), ("propagation", True)])
def test_what_moves_one_way_is_learned_by_whoever_sees_time(name, sees_time):
    torch.manual_seed(0)
    train, dev = ramps(80, 0), ramps(30, 1)
    model = build_classifier(name, 2, train.clips.channels, hidden_size=32)
    found = train_classifier(model, train, dev, TrainingSettings(epochs=10), spread_frames(16), seed=0)
    assert (found["dev_top1"] > 90) == sees_time
