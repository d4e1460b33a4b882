"""Teaching region statistics: what is learned, who is shown to walk, and what stays."""

import shutil
from dataclasses import replace
from pathlib import Path

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts import train_statistics
from kinetrack.hub_scripts.data.sources import action_names
from kinetrack.hub_scripts.data.splits import parse_item, read_split
from kinetrack.hub_scripts.train_statistics import fit_reader, walking_clips, with_statistics
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor


@pytest.fixture
def root(data_root, tmp_path):
    """The same data, with a training clip of the dev clip's class as well, and with one of somebody who walks."""
    root = shutil.copytree(data_root, tmp_path / "data")
    held_out = next(parse_item(item)[0] for item in read_split("dev") if "/jhmdb/" in item)
    for name in (held_out, held_out.replace("/train/", "/train_boxes/").replace(".mp4", ".txt")):
        shutil.copy(root / name, (root / name).with_stem("another_film"))
        walks = (root / name).parent.with_name("walk")
        walks.mkdir()
        shutil.copy(root / name, walks / Path(name).name)
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


def test_statistics_are_learned_and_all_else_stays(root, checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "new"
    monkeypatch.setattr("sys.argv", ["train_statistics", str(checkpoint), "--data", str(root), "--output", str(output)])
    train_statistics.main()
    old = KineTrackForVideoAnalysis.from_pretrained(checkpoint)
    model, _ = kinetrack.load_model(output, "cpu")
    assert model.config.statistics_channels
    kept = dict(model.named_parameters())
    for name, parameter in old.named_parameters():
        if name == "action_head.classifier.weight":
            factor = kept[name] / parameter
            torch.testing.assert_close(factor, factor.flatten()[0].expand_as(factor))
        elif not name.startswith("action_head."):
            assert torch.equal(kept[name], parameter), name
    size = 9 * model.config.cell_channels
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


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_are_read_off_statistics(classes):
    rng = np.random.default_rng(0)
    statistics, actions = rng.normal(3.0, 2.0, (120, 7)), np.arange(120) % classes
    for action in range(classes):
        statistics[:, action] += 8 * (actions == action)
    weight, bias = fit_reader(statistics, actions, penalty=0.01)
    assert weight.shape == (classes, 7) and bias.shape == (classes,)
    assert ((statistics @ weight.T + bias).argmax(1) == actions).mean() > 0.9
    strict, _ = fit_reader(statistics, actions, penalty=100.0)
    assert np.abs(strict).max() < 0.1 * np.abs(weight).max()


def test_a_class_without_clips_is_refused():
    with pytest.raises(ValueError, match=r"classes \[1\]"):
        fit_reader(np.zeros((4, 2)), np.array([0, 0, 2, 2]), penalty=1.0)


def test_walkers_are_the_people_of_the_training_sequences(root):
    form = replace(train_statistics._WALKERS, num_frames=8)
    walkers = walking_clips(root, form, seed=0)
    walk = action_names(root).index("walk")
    assert len(walkers) and all(sample["labels"] == walk for sample in walkers)
    shutil.rmtree(root / "mot")
    with pytest.raises(ValueError, match="--walker-passes 0"):
        walking_clips(root, form, seed=0)
