"""Verdicts follow from the figures by rule, and both commands go from video to report."""

import json

import numpy as np
import pytest
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.attention import Attention
from kinetrack.hub_scripts.experiments.experiment import Results, hits_text
from kinetrack.hub_scripts.experiments.joint_model import SHARED
from kinetrack.hub_scripts.experiments.multitask import Multitask
from typer.testing import CliRunner

FILMS = [f"film {n // 2}" for n in range(60)]
DATA = {"films": FILMS, "stretches": [f"S {n}" for n in range(8)], "val_clips": 60, "val_films": 30}


def measured(accuracy=0.5, hota=40.0, across=0.0, alpha=0.8, inside=0.3, seed=0):
    """One seed: `accuracy` of the first clips are right, stretches about `hota`."""
    rng = np.random.default_rng(seed)
    stretch = (hota + np.linspace(-2, 2, 8) + rng.normal(0, 0.1, 8)).tolist()
    scores = {"HOTA": hota, "IDF1": hota + 10, "MOTA": hota, "IDSW": 3}
    series = [round(float(value), 4) for value in across + rng.normal(0, 0.01, 10)]
    return {
        "minutes": 1.0,
        "parameters": {"actions": 3_000_000, "tracking": 3_000_000, "actions+tracking": 4_000_000},
        "milliseconds": {"actions": 60.0, "tracking": 60.0, "actions+tracking": 60.0},
        "actions": {
            "hits": hits_text(np.arange(60) % 10 < 10 * accuracy),
            "alpha": alpha,
            "beta": 0.9,
            "inside": [None, *([inside] * 59)],
            "area": [None, *([0.2] * 59)],
        },
        "tracking": {
            "whole": {"COMBINED": scores},
            "stretches": {"HOTA": stretch, "IDF1": [value + 10 for value in stretch]},
            "ap50": 60.0,
            "inside": [0.2] * 8,
            "area": [0.2] * 8,
        },
        "start": {"inside": [None, *([0.2] * 59)], "area": [None, *([0.2] * 59)]},
        "training": {
            "entropy": {level: [0.99, alpha] for level in ("alpha on actions", "alpha on tracking", "beta on actions")},
            "cosine": {
                pair: {part: series if pair == "across" else [0.2] * 10 for part in SHARED}
                for pair in ("across", "actions", "tracking")
            },
            "negative": {part: [50.0] * 10 for part in SHARED},
            "weights": {"action": 0.5, "box": 1.0},
        },
    }


def made_up(experiment, **variants) -> Results:
    cells = [
        {"variant": name.replace("_", "-"), "seed": seed, "measures": measured(seed=seed, **options)}
        for name, options in variants.items()
        for seed in range(3)
    ]
    protocol = json.loads(json.dumps(experiment.protocol(quick=False)))
    return Results(cells, DATA, protocol)


@pytest.mark.parametrize(
    ("joint", "verdict"),
    [
        ({"accuracy": 0.5, "hota": 40}, "neither positive transfer nor interference was shown"),
        ({"accuracy": 0.8, "hota": 40}, "positive transfer"),
        ({"accuracy": 0.5, "hota": 30}, "interference"),
        ({"accuracy": 0.8, "hota": 30}, "positive transfer in one measure, interference in another"),
    ],
)
def test_the_verdict_on_both_tasks_follows_from_the_intervals(joint, verdict):
    experiment = Multitask()
    alone = {"accuracy": 0.5, "hota": 40}
    results = made_up(experiment, actions=alone, tracking=alone, joint_fixed=joint, joint_learned=joint)
    assert experiment.summarise(results).verdict == verdict
    assert verdict.capitalize() in experiment.conclude(results)[0]
    assert "takes 50 ± 0 % less processor time a frame" in " ".join(experiment.conclude(results))


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.5, "top-1 +0.0 (+0.0 to +0.0) points, not shown to differ"), (0.8, "points, better"), (0.2, "points, worse")],
)
def test_learned_weights_are_compared_with_fixed_ones(accuracy, said):
    single = {"actions": {}, "tracking": {}, "joint_fixed": {}}
    results = made_up(Multitask(), **single, joint_learned={"accuracy": accuracy})
    [text] = [paragraph for paragraph in Multitask().conclude(results) if "Weights of the losses" in paragraph]
    assert said in text.split(";")[0] and "action 0.50 (0.5), box 1.00 (1)" in text
    alone = Multitask().conclude(made_up(Multitask(), **single))
    assert not any("Weights of the losses" in paragraph for paragraph in alone)


@pytest.mark.parametrize(
    ("across", "said"), [(0.0, "not shown to be other than 0"), (0.3, "agree"), (-0.3, "conflict")]
)
def test_agreement_of_gradients_follows_from_their_cosine(across, said):
    results = made_up(Multitask(), actions={}, tracking={}, joint_fixed={"across": across})
    text = " ".join(Multitask().conclude(results))
    assert text.count(said) == len(SHARED)
    assert ("closer to orthogonal" in text) == (abs(across) < 0.2)


def test_attention_is_worth_what_its_absence_costs():
    experiment = Attention()
    same = made_up(experiment, none={}, spatial={}, temporal={}, both={})
    assert experiment.summarise(same).verdict.startswith("top-1: not shown to differ; HOTA: not shown to differ; ")
    assert "0.0 points (95 % interval +0.0 to +0.0)" in " ".join(experiment.conclude(same))
    gain = made_up(experiment, none={"accuracy": 0.2}, both={"accuracy": 0.5})
    assert experiment.summarise(gain).verdict.startswith("top-1: a gain; HOTA: not")
    assert "2.1 points lie outside that interval" in " ".join(experiment.conclude(gain))


@pytest.mark.parametrize(
    ("alpha", "said"),
    [(0.8, "nothing collapsed"), (0.995, "both: α near uniform in 3"), (0.01, "α on single entries in 3")],
)
def test_collapse_is_seen_in_the_entropies(alpha, said):
    results = made_up(Attention(), none={"alpha": 1.0}, both={"alpha": alpha})
    text = " ".join(Attention().conclude(results))
    assert said in text and ("compute almost the same" in text) == (alpha > 0.99)


@pytest.mark.parametrize(
    ("inside", "said"), [(0.4, "more than the"), (0.1, "less than the"), (0.2, "not shown to be other than the")]
)
def test_alpha_on_people_is_compared_with_their_area(inside, said):
    results = made_up(Attention(), none={}, both={"inside": inside})
    [text] = [paragraph for paragraph in Attention().conclude(results) if "Where α looks" in paragraph]
    assert said in text.split(";")[0]


def test_few_trainings_show_nothing_of_training():
    results = made_up(Multitask(), actions={}, tracking={}, joint_fixed={"accuracy": 0.9})
    assert Multitask().summarise(results).verdict == "positive transfer"
    results.cells = [cell for cell in results.cells if cell["variant"] != "joint-fixed" or cell["seed"] < 2]
    verdict = Multitask().summarise(results).verdict
    assert verdict == "neither positive transfer nor interference was shown (2 to 3 seeds)"
    assert "better in these trainings, too few to show it" in Multitask().conclude(results)[0]
    assert "intervals speak of these very trainings" in Multitask().conclude(results)[-1]


def test_figures_of_single_tasks_leave_the_other_out():
    experiment = Multitask()
    results = made_up(experiment, actions={}, tracking={}, joint_fixed={})
    del results.cells[0]["measures"]["tracking"]
    row = next(row for row in experiment.tables(results)[0].rows if row[0] == "actions")
    assert row[3:] == ["–"] * 5 and row[1] != "–"


@pytest.mark.filterwarnings("ignore:.*the result is empty")
def test_quick_runs_go_from_video_to_report_and_share_their_common_cell(joint_root, tmp_path):
    cache = tmp_path / "cache"
    for name, variants in (("multitask", ["tracking", "joint-fixed"]), ("attention", ["none", "both"])):
        out = tmp_path / name
        arguments = ["experiment", name, "--data", joint_root, "-o", out, "--quick", "--seeds", "1", "--cache", cache]
        for variant in variants:
            arguments += ["--variant", variant]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        assert "its figures mean nothing" in (out / "README.md").read_text()
        for picture in out.glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((cache / "joint-cells").glob("*.json"))) == 3
    common = [
        next(
            cell["measures"]
            for cell in json.loads((tmp_path / name / "results.json").read_text())["cells"]
            if cell["variant"] == variant
        )
        for name, variant in (("multitask", "joint-fixed"), ("attention", "both"))
    ]
    assert common[0]["training"] == common[1]["training"] and len(list((tmp_path / "attention").glob("*.png"))) == 2
