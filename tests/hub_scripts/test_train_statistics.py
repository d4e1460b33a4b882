"""Teaching region statistics: what is learned, what stays, and that the one layer is the product of the two."""

import shutil

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts import train_statistics
from kinetrack.hub_scripts.data.sources import action_names
from kinetrack.hub_scripts.data.splits import parse_item, read_split
from kinetrack.hub_scripts.train_statistics import Settings, fit_reader, with_statistics
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor


@pytest.fixture
def root(data_root, tmp_path):
    """The same data, with a training clip of the dev clip's class as well."""
    root = shutil.copytree(data_root, tmp_path / "data")
    held_out = next(parse_item(item)[0] for item in read_split("dev") if "/jhmdb/" in item)
    for name in (held_out, held_out.replace("/train/", "/train_boxes/").replace(".mp4", ".txt")):
        shutil.copy(root / name, (root / name).with_stem("another_film"))
    return root


@pytest.fixture(params=[[], ["head", "hand"]], ids=["plain", "with keypoints"])
def checkpoint(root, tiny_backbone, tmp_path, request):
    config = KineTrackConfig(
        backbone_config=tiny_backbone,
        hidden_size=16,
        embedding_size=8,
        attention_window=8,
        keypoints=request.param,
        id2label=dict(enumerate(action_names(root))),
        trained=True,
    )
    KineTrackForVideoAnalysis(config).save_pretrained(tmp_path / "old")
    KineTrackVideoProcessor().save_pretrained(tmp_path / "old")
    return tmp_path / "old"


def test_statistics_are_learned_and_all_else_stays(root, checkpoint, teacher_file, tmp_path, monkeypatch):
    output = tmp_path / "new"
    paths = ["--data", str(root), "--teacher", str(teacher_file), "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["train_statistics", str(checkpoint), *paths, "--components", "2"])
    train_statistics.main()
    old = KineTrackForVideoAnalysis.from_pretrained(checkpoint)
    model, _ = kinetrack.load_model(output, "cpu")
    assert model.config.region_statistics
    kept = dict(model.named_parameters())
    for name, parameter in old.named_parameters():
        if name == "action_head.classifier.weight":
            factor = kept[name] / parameter
            torch.testing.assert_close(factor, factor.flatten()[0].expand_as(factor))
        elif not name.startswith("action_head."):
            assert torch.equal(kept[name], parameter), name
    size = 3 * model.config.statistics_channels
    assert kept["action_head.movement_classifier.weight"][:, -size:].any()
    assert (output / "statistics.json").is_file()


def test_new_statistics_change_nothing_before_they_are_taught(checkpoint):
    old = KineTrackForVideoAnalysis.from_pretrained(checkpoint).eval()
    new = with_statistics(old)
    clip = torch.randn(1, 4, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(new(clip).logits, old(clip).logits)
    with pytest.raises(ValueError, match="already"):
        with_statistics(new)


def test_the_layer_is_the_product_of_foretelling_and_reading():
    rng = np.random.default_rng(0)
    statistics, actions = rng.normal(3.0, 2.0, (120, 7)), np.arange(120) % 4
    for action in (1, 2, 3):
        statistics[:, action] += 8 * (actions == action)
    taught = statistics[:, :4] @ rng.normal(size=(4, 10)) + rng.normal(0, 0.1, (120, 10))
    weight, bias = fit_reader(statistics, taught, actions, Settings(components=4, ridge=1.0, inverse_penalty=10.0))
    assert weight.shape == (4, 7) and bias.shape == (4,)
    assert ((statistics @ weight.T + bias).argmax(1) == actions).mean() > 0.9
    narrow, _ = fit_reader(statistics, taught, actions, Settings(components=2, ridge=1.0, inverse_penalty=10.0))
    assert np.linalg.matrix_rank(weight, tol=1e-6) > np.linalg.matrix_rank(narrow, tol=1e-6) == 2


def test_a_class_without_clips_is_refused():
    with pytest.raises(ValueError, match=r"classes \[1\]"):
        fit_reader(np.zeros((4, 2)), np.zeros((4, 2)), np.array([0, 0, 2, 2]), Settings())
