"""Model cards: written from the checkpoint's files, and the shipped one in step with them."""

import json

import pytest
from huggingface_hub import ModelCard
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.model_card import evaluation_results, measure, model_card, read_notes
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.loading import SHIPPED_MODELS
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from typer.testing import CliRunner

NANO = SHIPPED_MODELS / "kinetrack-nano"
BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
BACKBONE |= {"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}
SCORES = {"HOTA": 51.234, "DetA": 50.0, "AssA": 52.0, "MOTA": 61.0, "MOTP": 71.0, "IDF1": 81.0}
SCORES |= {"IDSW": 3, "Frag": 4, "FP": 5, "FN": 6}
CLIPS = {"top1": 75.0, "top5": 100.0, "mean_class_accuracy": 70.0, "expected_calibration_error": 0.05, "clips": 40}
CLIPS |= {"names": ["run", "sit"], "per_class": {"run": 100.0, "sit": 10.0}}
MACHINE = {"date": "2026-01-02T03:04:05+00:00", "processor": "A processor", "threads": 2, "torch": "2.9"}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """The files of a tiny trained model, without weights: a card needs none."""
    monkeypatch.setattr("kinetrack.configuration.configuration_kinetrack.PRESETS", {})
    folder = tmp_path / "tiny"
    labels = {"id2label": {0: "run", 1: "sit"}, "label2id": {"run": 0, "sit": 1}}
    KineTrackConfig(backbone_config=BACKBONE, hidden_size=8, embedding_size=4, trained=True, **labels).save_pretrained(
        folder
    )
    KineTrackVideoProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)
    return folder


def beside(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_shipped_card_is_what_its_files_give():
    assert (NANO / "README.md").read_text() == model_card(NANO), "Run `kinetrack card kinetrack-nano` and commit it."


def test_the_shipped_metadata_hold_the_scores_and_the_licence():
    card = ModelCard.load(NANO / "README.md")
    report = json.loads((NANO / "evaluation.json").read_text())
    found = {(item.dataset_name, item.metric_type): item.metric_value for item in card.data.eval_results}
    for sequence in set(report["tracking"]) - {"COMBINED"}:
        for metric in ("HOTA", "MOTA", "MOTP", "IDF1"):
            assert found[sequence, metric.lower()] == pytest.approx(report["tracking"][sequence][metric], abs=0.006)
    top1 = sorted(scores["top1"] for scores in report["actions"].values())
    assert sorted(value for (_, kind), value in found.items() if kind == "accuracy") == pytest.approx(top1, abs=0.006)
    assert card.data.license == "other" and card.data.license_name == "non-commercial-research"
    config = json.loads((NANO / "config.json").read_text())
    assert all(f"`{name}`" in card.text for name in config["id2label"].values())
    assert "non-commercial research only" in card.text and "CC BY-NC-SA 3.0" in card.text


def test_scores_names_and_speed_are_those_of_the_files(checkpoint):
    beside(checkpoint, "evaluation.json", {"tracking": {"STREET": SCORES}, "actions": {"actions": CLIPS}})
    milliseconds = {"decode": 1.0, "preprocess": 2.0, "model": 30.0, "association": 0.4}
    row = {
        "video": "example",
        "model_input": [64, 96],
        "backend": "onnx",
        "frames_per_second": 29.9,
        "milliseconds": milliseconds,
    }
    beside(checkpoint, "benchmark.json", {"machine": MACHINE, "speed": [row]})
    beside(
        checkpoint, "card_notes.md", "---\nlicense: mit\nevaluation: {actions: My clips}\n---\n## Results\n\nMine.\n"
    )
    card = ModelCard(model_card(checkpoint))
    assert card.data.license == "mit" and card.data.model_name == "tiny"
    assert [(item.dataset_name, item.metric_value) for item in card.data.eval_results][::4] == [
        ("STREET", 51.23),
        ("My clips", 75.0),
    ]
    assert "| STREET | 51.2 | 50.0 | 52.0 | 61.0 | 71.0 | 81.0 | 3 | 4 | 5 | 6 |" in card.text
    assert "| My clips | 40 | 75.0 % | – | 70.0 % | 0.05 |" in card.text and "`sit` (10 %)" in card.text
    assert "| example | 64×96 | onnx | 29.9 | 1.0 | 2.0 | 30.0 | 0.4 |" in card.text and "2026-01-02" in card.text
    assert card.text.rstrip().index("Mine.") > card.text.index("My clips")


def test_the_card_says_what_is_left_without_parts_of_the_model(checkpoint):
    notes = '---\nevaluation: {command: "kinetrack evaluate tiny", date: 2026-01-02}\n---\n'
    whole = {"tracking": {"STREET": SCORES}, "actions": {"actions": CLIPS}}
    without = {"tracking": {"STREET": SCORES | {"HOTA": 12.34}}, "actions": {"actions": CLIPS | {"top1": 7.0}}}
    beside(checkpoint, "card_notes.md", notes)
    beside(checkpoint, "evaluation.json", whole | {"ablations": {"reset": without, "uniform": whole}})
    text = model_card(checkpoint)
    assert "|  | as shipped | reset | uniform |" in text and "| STREET, HOTA | 51.2 | 12.3 | 51.2 |" in text
    assert "| actions, top-1 | 75.0 | 7.0 | 75.0 |" in text and "nothing is carried from frame to frame" in text


def test_what_was_not_measured_is_not_claimed(checkpoint):
    card = ModelCard(model_card(checkpoint))
    assert "has not been evaluated" in card.text and "## Speed" not in card.text and "not recorded" in card.text
    assert card.data.eval_results is None and card.data.license is None


def test_the_size_is_that_of_the_model_and_its_cost_grows_with_the_input(checkpoint):
    config = KineTrackConfig.from_pretrained(checkpoint)
    parameters, gflops = measure(config, (64, 96))
    assert parameters == sum(parameter.numel() for parameter in KineTrackForVideoAnalysis(config).parameters())
    assert measure(config, (128, 192))[1] == pytest.approx(4 * gflops, rel=0.01)


def test_few_classes_have_no_top_five():
    metrics = [item.metric_type for item in evaluation_results({"actions": {"actions": CLIPS}}, {})]
    assert metrics == ["accuracy"]


def test_an_untrained_model_has_a_card_only_when_asked_and_it_says_so(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    beside(checkpoint, "config.json", config | {"trained": False})
    with pytest.raises(ValueError, match="has not been trained.*--allow-untrained"):
        model_card(checkpoint)
    assert "**This model has not been trained: its outputs are noise.**" in model_card(checkpoint, allow_untrained=True)
    assert "not been trained" not in (NANO / "README.md").read_text()


@pytest.mark.parametrize("text", ["Some words.\n", "## Recipes\n\nCake.\n"], ids=["no heading", "no such heading"])
def test_notes_without_a_place_are_refused_instead_of_lost(tmp_path, text):
    (tmp_path / "card_notes.md").write_text(text)
    with pytest.raises(ValueError, match="expected sections .* Architecture"):
        read_notes(tmp_path / "card_notes.md")


def test_the_command_writes_the_card(checkpoint):
    done = CliRunner().invoke(app, ["card", str(checkpoint)])
    assert done.exit_code == 0, done.output
    assert (checkpoint / "README.md").read_text() == model_card(checkpoint)
    assert not list(checkpoint.glob(".*"))
