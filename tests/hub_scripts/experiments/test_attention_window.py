"""Clips are scored as `evaluate` scores them, streams over every window at once, and findings follow the numbers."""

import json

import numpy as np
import pytest
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.evaluate import evaluate
from kinetrack.hub_scripts.experiments.attention_window import STREAMS, WINDOWS, AttentionWindow, looking_back
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.processing.loading import load_model
from typer.testing import CliRunner


@pytest.fixture
def windowed(tmp_path, model_folder):
    """The tiny model with a window that the experiment compares, and with the classes of the clips."""
    model, processor = load_model(model_folder, "cpu", allow_untrained=True, backend="torch")
    model.config.attention_window = model.kinetrack.attention.window = 16
    model.config.id2label = {0: "golf", 1: "run", 2: "sit"}
    folder = tmp_path / "windowed"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_another_window_is_there_for_a_while(model_folder):
    model, _ = load_model(model_folder, "cpu", allow_untrained=True, backend="torch")
    before = model.config.attention_window
    with pytest.raises(KeyError), looking_back(model, 3):
        assert model.config.attention_window == model.kinetrack.attention.window == 3
        raise KeyError
    assert model.config.attention_window == model.kinetrack.attention.window == before


def test_a_quick_run_scores_clips_as_evaluate_does(clips_root, windowed, tmp_path):
    options = ["--data", clips_root, "-o", tmp_path / "out", "--quick", "--seeds", "1", "--model", windowed]
    result = CliRunner().invoke(app, list(map(str, ["experiment", "attention-window", *options])))
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    cells = {cell["variant"]: cell["measures"] for cell in content["cells"]}
    assert list(cells) == [*WINDOWS, STREAMS] and len(cells["8"]["clip"]) == content["data"]["dev_clips"] == 2
    model, processor = load_model(windowed, "cpu", allow_untrained=True, backend="torch")
    with looking_back(model, 8):
        report = evaluate((model, processor), clips_root, "actions", split="dev", allow_untrained=True)
    for key, scores in (("clip", report["actions"]["actions"]), ("actor", report["people"])):
        assert scores["clips"] == 2 and scores["top1"] == 100 * cells["8"][key].count("1") / 2
    assert set(cells["8"]) == {"clip", "actor"} and (tmp_path / "out" / "window.png").is_file()


def made_up(short: float, long: float) -> Results:
    """Clips alone are right whatever the window; at the ends of clips in streams it matters."""
    alone = {"clip": "1" * 20, "actor": "1" * 20, "fight": "1" * 10}
    ends = {"8": [short] * 20, "16": [long] * 20, "32": [long] * 20}
    played = {"ends": ends, "frames": {window: [0.5] * 20 for window in WINDOWS}, "shortest": 8, "longest": 20}
    cells = [{"variant": window, "seed": 0, "measures": alone} for window in WINDOWS]
    cells += [{"variant": STREAMS, "seed": seed, "measures": {"actions": played}} for seed in range(3)]
    data = {"films": list(range(20)), "fights": list(range(10)), "attention_window": "32"}
    return Results(cells, data | {"dev_clips": 20, "dev_fights": 10})


@pytest.mark.parametrize(
    ("short", "verdict"),
    [
        (0.9, "8 frames are better at actions at the ends of clips, and not shown to be worse anywhere"),
        (0.1, "8 frames are worse at actions at the ends of clips"),
        (0.5, "8 frames are not shown to differ"),
    ],
)
def test_finding_says_what_a_window_changes(short, verdict, tmp_path):
    experiment, results = AttentionWindow(), made_up(short, 0.5)
    assert experiment.summarise(results).verdict == f"{verdict}; 16 frames are not shown to differ"
    text = " ".join(experiment.conclude(results))
    assert "16 frames, actions of clips, +0.0 (+0.0 to +0.0), not shown" in text and verdict in text
    assert experiment.draw(results, tmp_path)[0].file == "window.png" and len(experiment.tables(results)) == 2
    assert np.isclose(results.values(STREAMS, "actions", "ends", "8").mean(), short)
