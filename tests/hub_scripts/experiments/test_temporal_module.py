"""Models of equal size, of which one cannot use time; findings that follow the numbers; the command from end to end."""

import json

import pytest
import torch
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.temporal_models import FORMS, build_classifier, count_parameters
from kinetrack.hub_scripts.experiments.temporal_module import VIEWS, TemporalModule
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {name: build_classifier(name, 5, (20, 6), hidden_size=32).eval() for name in FORMS}


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(1)
    return {"cells": torch.randn(2, 6, 2, 2, 20), "middle": torch.randn(2, 6, 6, 4, 4)}


@pytest.mark.parametrize("name", FORMS)
def test_all_models_have_equally_many_parameters(models, name):
    assert count_parameters(models[name]) == pytest.approx(count_parameters(models["propagation"]), rel=0.05)


@pytest.mark.parametrize("name", FORMS)
def test_only_the_mean_is_blind_to_the_order_of_frames(models, clip, name):
    with torch.no_grad():
        forward = models[name](**clip)
        backward = models[name](**{key: value.flip(1) for key, value in clip.items()})
    assert torch.allclose(forward, backward, atol=1e-6) == (name == "mean")


@pytest.mark.parametrize("name", FORMS)
def test_every_model_learns_from_every_part(models, clip, name):
    model = models[name]
    model.zero_grad()
    model(**clip).square().sum().backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    without_beta = [] if name == "propagation+beta" else ["attention.temporal_projection.weight"]
    assert idle == without_beta


def test_models_that_cannot_be_of_equal_size_are_refused(monkeypatch):
    monkeypatch.setattr("kinetrack.hub_scripts.experiments.temporal_models.PARAMETER_TOLERANCE", 0.0)
    with pytest.raises(ValueError, match="gru has .* parameters at best"):
        build_classifier("gru", 5, (20, 6), hidden_size=32)


def made_up(propagation: str, gru: str, shuffled: str) -> Results:
    """Two models on 40 clips of 40 films."""

    def cell(variant, ordered, shuffled):
        measures = {
            "hits": {view: ordered for view in VIEWS} | {"shuffled": shuffled},
            "changed": dict.fromkeys(VIEWS, 0.0) | {"shuffled": 25.0},
            "milliseconds": {"16": 2.0, "160": 20.0 if variant == "propagation" else 30.0},
        }
        return {"variant": variant, "seed": 0, "measures": measures}

    data = {"films": list(range(40)), "val_clips": 40, "val_films": 40}
    return Results([cell("propagation", propagation, shuffled), cell("gru", gru, gru)], data)


def test_finding_says_what_was_shown():
    text = " ".join(TemporalModule().conclude(made_up("1" * 40, "0" * 40, "0" * 40)))
    assert "above gru by +100.0 (+100.0 to +100.0) points" in text
    assert "propagation loses 100.0 points with shuffled frames" in text
    assert "propagation 25.0 %" in text
    assert "of 160 frames it takes 20 ms, in all timings less than gru, and more than none" in text


def test_finding_says_what_was_not_shown():
    text = " ".join(TemporalModule().conclude(made_up("10" * 20, "01" * 20, "10" * 20)))
    assert "was shown to differ from none" in text and "No difference was shown from gru" in text
    assert "No model was shown to lose anything" in text


def run_command(*arguments):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


def test_a_quick_run_writes_results_report_and_plots(clips_root, tmp_path):
    cache = tmp_path / "cache"
    options = ["--data", clips_root, "-o", tmp_path / "out", "--cache", cache, "--quick", "--seeds", 1]
    result = run_command("temporal-module", *options, "--variant", "propagation", "--variant", "mean")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["quick"] and {cell["variant"] for cell in content["cells"]} == {"propagation", "mean"}
    hits = content["cells"][0]["measures"]["hits"]
    assert set(hits) == set(VIEWS) and all(len(text) == 2 for text in hits.values())
    blind = next(cell["measures"] for cell in content["cells"] if cell["variant"] == "mean")
    assert blind["changed"]["shuffled"] == blind["changed"]["reversed"] == 0
    report = (tmp_path / "out" / "README.md").read_text()
    assert "its figures mean nothing" in report and "not run" in report
    for picture in ("accuracy.png", "time.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG") and picture in report
    assert len(list(cache.rglob("*.npz"))) == 8  # every clip is encoded once


def test_without_a_name_the_plan_is_listed():
    result = run_command()
    assert result.exit_code == 0 and "temporal-module" in result.output and "All of them" in result.output


def planned_hours(output: str) -> float:
    return float(output.rstrip().rpartition("All of them: ")[2].split()[0])


def test_the_whole_plan_fits_into_a_night():
    assert 0 < planned_hours(run_command().output) <= 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "There is no experiment 'no-such'. Choose one of"),
        (["temporal-module"], "needs --data"),
        (["temporal-module", "--data", "."], "needs --output"),
        (["temporal-module", "--data", ".", "-o", "OUT"], "give --weights"),
        (["temporal-module", "--data", ".", "-o", "OUT", "--weights", "no.pth"], "No file of weights at no.pth"),
        (["temporal-module", "--data", "no", "-o", "OUT", "--quick"], "No such folder: no"),
        (["temporal-module", "--data", ".", "-o", "OUT", "--quick", "--variant", "x"], "has no variant 'x'"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, arguments, message):
    result = run_command(*(tmp_path / "out" if argument == "OUT" else argument for argument in arguments))
    assert result.exit_code != 0 and message in str(result.exception)
    assert not (tmp_path / "out").exists()
