"""What is loaded as a model, and what never is."""

import json
import shutil

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.processing.loading import load_model
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from safetensors.torch import load_file, save_file


@pytest.fixture
def folder(model_folder, tmp_path):
    """A model that a test may spoil."""
    return shutil.copytree(model_folder, tmp_path / "spoiled")


def configure(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_pickled_weights_are_refused_unread(tmp_path):
    KineTrackConfig(trained=True).save_pretrained(tmp_path)
    KineTrackVideoProcessor().save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ValueError, match=r"are a pickle \(pytorch_model.bin\).*save_pretrained`\.$"):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 1000, -5000], ids=["nothing", "header", "most"])
def test_weights_that_are_cut_off_are_a_clear_error(folder, keep):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match="weights of .*spoiled cannot be read .*damaged, cut off, or a pointer"):
        load_model(folder)


def test_labels_of_another_number_than_the_weights_are_a_clear_error(folder):
    names = ["walk", "run", "sit", "wave", "jump"]
    configure(folder, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})
    with pytest.raises(ValueError, match=r"classifier.* has the shape \(3.*asks for \(5"):
        load_model(folder)


@pytest.mark.parametrize("name", ["tracking_head.heatmap.weight", "kinetrack.propagation.0.value.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_a_clear_error(folder, name, value):
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"not finite .*{name}"):
        load_model(folder)


@pytest.mark.parametrize(("changes", "field"), [({"scan": "fast"}, "scan"), ({"hidden_size": "wide"}, "hidden_size")])
def test_a_wrong_configuration_names_the_field(folder, changes, field):
    configure(folder, **changes)
    with pytest.raises(ValueError, match=f"configuration of .*spoiled is wrong: .*{field}"):
        load_model(folder)


def test_weights_are_the_saved_ones_bit_for_bit(model_folder):
    network, _ = load_model(model_folder, device="cpu")
    saved = load_file(model_folder / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items() if name in saved)
