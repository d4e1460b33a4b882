"""Every clip runs both ways, only who sees time can learn which is which, and a finding tells skill from guessing."""

import json

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.arrow_of_time import ArrowOfTime
from kinetrack.hub_scripts.experiments.clip_training import ClipSet
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.features import ClipFeatures
from kinetrack.hub_scripts.experiments.played_both_ways import (
    PairSettings,
    Plays,
    judge_margins,
    look_at_frames,
    score_margins,
    train_both_ways,
)
from kinetrack.hub_scripts.experiments.temporal_models import build_classifier
from typer.testing import CliRunner


def clip_set(coarse: list[np.ndarray], seed: int = 0) -> ClipSet:
    """Clips with those coarse maps (T, C, h, w) and noise in the finer ones."""
    rng, clips = np.random.default_rng(seed), []
    for number, maps in enumerate(coarse):
        length, _, height, width = maps.shape
        middle = rng.normal(size=(length, 4, 2 * height, 2 * width)).astype(np.float16)
        name, boxes = f"{number}.mp4", np.zeros((length, 4))
        clips.append(ClipFeatures(name, str(number), 0, middle, maps.astype(np.float16), boxes))
    return ClipSet(clips)


def ramps(count: int, seed: int) -> ClipSet:
    """Clips that are still but for one direction of feature space, along which they move from one end to the other."""
    rng, ramp = np.random.default_rng(seed), np.linspace(-1, 1, 16)[:, None, None, None]
    slope = np.random.default_rng(9).normal(size=(1, 12, 1, 1))
    return clip_set([rng.normal(size=(1, 12, 2, 2)) + ramp * slope for _ in range(count)], seed)


def test_the_second_half_of_a_batch_is_the_first_backwards():
    rng = np.random.default_rng(0)
    clips = clip_set([3 * rng.normal(size=(9, 6, 3, 3)) for _ in range(4)])
    plays, inner = Plays(clips, frames=5), Plays(clips, frames=5, trim=2)
    batch = plays.both_ways([0, 2], with_middle=True)
    assert batch["cells"].shape == (4, 5, 3, 3, 10) and batch["middle"].shape == (4, 5, 4, 6, 6)
    for maps in batch.values():
        assert torch.equal(maps[2:], maps[:2].flip(1)) and not torch.equal(maps[2:], maps[:2])
    assert torch.equal(inner.both_ways([0], False)["cells"][0], _frames(plays, 0)[2:7])
    mirrored = plays.both_ways([0] * 64, True, np.random.default_rng(0))
    assert len(mirrored["cells"]) == len(mirrored["middle"]) == 128


def _frames(plays: Plays, clip: int) -> torch.Tensor:
    return plays._maps["cells"][clip]


def test_channels_weigh_alike_whatever_their_size():
    rng = np.random.default_rng(0)
    sizes = 10.0 ** np.arange(6)[None, :, None, None] / 100
    plays = Plays(clip_set([5 + sizes * rng.normal(size=(9, 6, 3, 3)) for _ in range(20)]), frames=5)
    around = torch.cat([_frames(plays, clip) - _frames(plays, clip).mean(0) for clip in range(20)])
    assert np.allclose(around.flatten(0, 2).std(0), 1, atol=0.1)


@pytest.mark.parametrize(("name", "sees_time"), [("mean", False), ("gru", True), ("propagation", True)])
def test_what_moves_one_way_is_learned_by_whoever_sees_time(name, sees_time):
    torch.manual_seed(0)
    train = Plays(ramps(80, 0), frames=16)
    dev = Plays(ramps(30, 1), frames=16, scales=train.scales)
    model = build_classifier(name, 2, (16, 4), hidden_size=32, dropout=0.0)
    found = train_both_ways(model, train, dev, PairSettings(epochs=4), seed=0)
    marks = judge_margins(score_margins(model, dev))
    assert len(marks) == 60 and found["dev_top1"] == pytest.approx(100 * marks.count("1") / 60)
    assert found["dev_top1"] > 90 if sees_time else marks == "10" * 30


def test_a_look_at_two_frames_finds_what_each_of_them_shows():
    rng, mark = np.random.default_rng(0), np.arange(8)[:, None, None, None] == 0
    noise = [rng.normal(size=(8, 12, 2, 2)) for _ in range(300)]
    parts = [Plays(clip_set(noise[first : first + 150]), 8) for first in (0, 150)]
    marked = [Plays(clip_set([maps + mark for maps in noise[first : first + 150]]), 8) for first in (0, 150)]

    def right(plays, *frames):
        return judge_margins(look_at_frames(*plays, *frames)).count("1") / 300

    assert right(marked, 0, 3) > 0.9 and 0.3 < right(marked, 2, 5) < 0.7 and 0.3 < right(parts, 0, 3) < 0.7


def cell(variant: str, whole: str, inner: str) -> dict:
    views = {"whole": whole, "inner": inner}
    found = {view: {"hits": marks, "dev_hits": marks, "dev_top1": 50.0} for view, marks in views.items()}
    return {"variant": variant, "seed": 0, "measures": found | {"parameters": 9}}


SURE, GUESS = "11" * 40, "1100" * 20


def report(*cells: dict) -> tuple[str, str]:
    results = Results(list(cells), {"films": list(range(40)), "val_clips": 40, "val_films": 40})
    return " ".join(ArrowOfTime().conclude(results)), ArrowOfTime().summarise(results).verdict


def test_finding_tells_skill_from_guessing():
    text, verdict = report(cell("propagation", SURE, SURE), cell("mean", "10" * 40, "10" * 40))
    assert "better than a guess, with intervals that hold together, propagation 100.0 %" in text
    assert "as it must" in text
    assert verdict == "it can use the order of frames; and also without the clips' ends"
    text, verdict = report(cell("propagation", SURE, GUESS), cell("mean", SURE, GUESS))
    assert "the protocol is broken" in text and "not shown to be better than a guess propagation 50.0 %" in text
    assert verdict == "it can use the order of frames; not shown without the clips' ends"
    assert report(cell("propagation", GUESS, GUESS))[1] == "not shown that it can use time, nor that others can"
    text, verdict = report(cell("propagation", GUESS, GUESS), cell("gru", SURE, SURE))
    assert "gru -50.0 (" in text and verdict == "not shown that it can use time, where others can"


def test_what_stills_give_away_stands_beside_what_modules_learn():
    look = cell("look", SURE, GUESS)
    look["measures"] |= {"start": {"hits": SURE}, "end": {"hits": GUESS}}
    text, verdict = report(cell("propagation", SURE, GUESS), look)
    assert "100 % (100 to 100) at the beginning" in text and "not whether it understands motion, which without" in text
    assert verdict.startswith("it can use the order of frames, here likely a mark of compression; not shown")
    look["measures"]["start"]["hits"] = GUESS
    text, verdict = report(cell("propagation", SURE, GUESS), look)
    assert "compression" not in text + verdict


def test_a_quick_run_scores_both_directions(clips_root, tmp_path):
    options = ["--data", clips_root, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--quick", "--seeds", "1"]
    variants = [word for name in ("mean", "propagation+differences", "look") for word in ("--variant", name)]
    result = CliRunner().invoke(app, list(map(str, ["experiment", "arrow-of-time", *options, *variants])))
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    blind = next(cell["measures"] for cell in cells if cell["variant"] == "mean")
    assert blind["whole"]["hits"] == blind["inner"]["hits"] == "10" * 2  # the same score both ways
    assert (tmp_path / "out" / "arrow.png").is_file()
