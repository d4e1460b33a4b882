"""What is committed was measured: reports and the README's rows are what the figures in `results.json` say."""

import json
from pathlib import Path

import pytest
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.readme_table import BEGIN, END, committed_rows, replace_table
from kinetrack.hub_scripts.experiments.registry import NAMES, load_experiment

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(file.parent for file in (ROOT / "hub_scripts" / "experiments" / "results").glob("*/results.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_report_and_readme_follow_from_the_committed_figures(folder):
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results = Results(content["cells"], content["data"], content["protocol"])
    experiment = load_experiment(content["experiment"])
    report = (folder / "README.md").read_text(encoding="utf-8")
    assert not content["quick"] and folder.name == experiment.name
    for paragraph in experiment.conclude(results):
        assert paragraph in report
    assert experiment.summary_row(results) in README
    assert content["protocol"] == json.loads(json.dumps(experiment.protocol(quick=False)))
    assert {cell["variant"] for cell in content["cells"]} <= set(experiment.variants)


def test_no_row_of_the_readme_is_about_an_experiment_that_was_not_run():
    ran = {folder.name for folder in FOLDERS}
    assert all(f"| `{name}`: " not in README for name in NAMES if name not in ran)


@pytest.mark.parametrize("picture", sorted(p for f in FOLDERS for p in f.glob("*.png")), ids=lambda path: path.name)
def test_pictures_are_small_and_shown(picture):
    assert picture.stat().st_size < 100_000
    assert picture.name in (picture.parent / "README.md").read_text(encoding="utf-8")


def test_the_table_is_replaced_between_its_markers():
    text = f"before\n{BEGIN}\nold\n{END}\nafter"
    new = replace_table(text, ["| a | b | c |"])
    assert new.startswith("before\n") and new.endswith("\nafter") and "old" not in new and "| a | b | c |" in new
    assert replace_table(new, ["| a | b | c |"]) == new
    with pytest.raises(ValueError, match="has no"):
        replace_table("no markers", [])


def test_the_readme_is_up_to_date():
    assert replace_table(README, committed_rows()) == README
