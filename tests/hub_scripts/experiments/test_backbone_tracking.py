"""Encoders are compared with Lite0 by what their trainings track, and the command goes from video to report."""

import numpy as np
import pytest
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.backbone import REFERENCE
from kinetrack.hub_scripts.experiments.backbone_tracking import BackboneTracking
from kinetrack.hub_scripts.experiments.experiment import Results
from typer.testing import CliRunner

LITE1 = "tf_efficientnet_lite1"


def made_up(difference: float) -> Results:
    """Three seeds of two encoders whose HOTA differs by so much."""
    cells = []
    for name, shift in ((REFERENCE, 0.0), (LITE1, difference)):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            hota = 40 + shift + np.linspace(-2, 2, 8) + rng.normal(0, 0.1, 8)
            scores = {"HOTA": 40 + shift, "IDF1": 50 + shift, "MOTA": 40 + shift}
            stretches = {"HOTA": hota.tolist(), "IDF1": (hota + 10).tolist()}
            tracking = {"whole": {"COMBINED": scores}, "stretches": stretches, "ap50": 60.0}
            cells.append({"variant": name, "seed": seed, "measures": {"tracking": tracking}})
    return Results(cells, {"stretches": [f"S {n}" for n in range(8)]}, {"steps": 3, "windows": 2})


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (5.0, f"{LITE1}'s HOTA better, {LITE1}'s IDF1 better"),
        (-5.0, f"{LITE1}'s HOTA worse, {LITE1}'s IDF1 worse"),
        (0.0, "no difference from Lite0 was shown"),
    ],
)
def test_verdict_follows_from_the_intervals(difference, verdict):
    results = made_up(difference)
    assert BackboneTracking().summarise(results).verdict == verdict
    assert f"{LITE1} {difference:+.1f}" in BackboneTracking().summarise(results).measured


def test_nothing_is_said_without_the_reference():
    results = made_up(0.0)
    results.cells = [cell for cell in results.cells if cell["variant"] != REFERENCE]
    assert BackboneTracking().summarise(results).verdict == "open"
    assert BackboneTracking().conclude(results) == ["No encoder can be compared with EfficientNet-Lite0 yet."]


@pytest.mark.filterwarnings("ignore:.*the result is empty")
def test_a_quick_run_trains_every_encoder_from_its_own_maps(joint_root, tmp_path):
    options = ["--data", joint_root, "-o", tmp_path, "--cache", tmp_path / "c", "--quick", "--seeds", 1]
    chosen = [option for name in (REFERENCE, LITE1) for option in ("--variant", name)]
    result = CliRunner().invoke(app, ["experiment", "backbone-tracking", *map(str, options), *chosen])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "results.json").read_text()
    assert f"{REFERENCE}-random-" in text and f"{LITE1}-random-" in text
    assert "**Not shown.**" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "tracking.png").read_bytes().startswith(b"\x89PNG")
