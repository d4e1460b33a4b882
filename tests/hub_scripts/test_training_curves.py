"""A training's log as a picture."""

import json
import sys

import pytest
from kinetrack.hub_scripts.training_curves import collect_curves, main, read_log
from PIL import Image

LOG = [
    {"heatmap": 2.0, "alpha_entropy": 0.9, "grad_norm": 3.0, "step": 10},
    {"heatmap": 1.0, "alpha_entropy": 0.8, "grad_norm": 2.0, "step": 20},
    {"dev_top1": 0.5, "step": 20},
]


def test_curves_are_what_the_log_says_by_panel():
    curves = collect_curves(LOG)
    assert {name: curve for panel in curves.values() for name, curve in panel.items()} == {
        "heatmap": ([10, 20], [2.0, 1.0]),
        "alpha_entropy": ([10, 20], [0.9, 0.8]),
        "dev_top1": ([20], [0.5]),
    }
    assert len(curves) == 3


def test_the_command_draws_a_log(tmp_path, monkeypatch):
    log, picture = tmp_path / "log.jsonl", tmp_path / "curves.png"
    log.write_text("".join(json.dumps(record) + "\n" for record in LOG))
    monkeypatch.setattr(sys, "argv", ["training_curves", str(log), "--output", str(picture)])
    main()
    with Image.open(picture) as drawn:
        assert drawn.width > 3 * 400


@pytest.mark.parametrize("content", ["", "step 1\n", "[1, 2]\n", '{"loss": 1}\n'])
def test_something_else_is_refused(tmp_path, content):
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(ValueError, match="is no log of a training"):
        read_log(log)
    with pytest.raises(FileNotFoundError, match="OUTPUT/log.jsonl"):
        read_log(tmp_path / "nowhere.jsonl")
