"""What a training starts from: a preset or a checkpoint, its pixels, and the stages that stay as they are."""

import pytest
import timm
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts.initialise import initialise
from kinetrack.hub_scripts.train_config import ModelSettings, TrainConfig
from kinetrack.hub_scripts.train_model import build_model, freeze_stages
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis

LABELS = {"id2label": {0: "walk", 1: "run", 2: "sit"}, "label_groups": {"fight": ["noFight", "fight"]}}
SMALL = {"hidden_size": 16, "embedding_size": 8}
IMAGENET_MEAN = [0.485, 0.456, 0.406]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """timm's MobileNetV3 with random weights, as a file."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict(), path)
    return path


def test_preset_takes_the_weights_and_their_normalisation(weights):
    backbone = {"model_type": "timm_backbone", "backbone": "mobilenetv3_small_050", "out_indices": [2, 3, 4]}
    settings = TrainConfig(
        model=ModelSettings(backbone_weights=str(weights), config=SMALL | {"backbone_config": backbone})
    )
    model, processor = build_model(settings, LABELS)
    stem = torch.load(weights)["conv_stem.weight"]
    assert torch.equal(model.kinetrack.encoder.backbone._backbone.conv_stem.weight, stem)
    assert list(processor.image_mean) == IMAGENET_MEAN
    assert model.config.num_labels == 3


def test_folder_of_init_takes_the_labels_of_the_data(weights, tmp_path):
    initialise("nano", weights, tmp_path / "start", backbone="mobilenetv3_small_050")
    model, processor = build_model(TrainConfig(model=ModelSettings(checkpoint=str(tmp_path / "start"))), LABELS)
    stem = torch.load(weights)["conv_stem.weight"]
    assert torch.equal(model.kinetrack.encoder.backbone._backbone.conv_stem.weight, stem)
    assert model.config.id2label == LABELS["id2label"] and model.config.label_groups == LABELS["label_groups"]
    assert model.action_head.classifier.out_features == 3
    assert list(processor.image_mean) == IMAGENET_MEAN


STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
NARROW = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}


def from_timm(name, *indices):
    return {"model_type": "timm_backbone", "backbone": name, "out_indices": list(indices)}


@pytest.mark.parametrize(
    ("backbone", "frozen", "free"),
    [
        (from_timm("resnet18", 2, 3, 4), ["conv1", "bn1", "layer1"], ["layer2", "layer3", "layer4"]),
        (from_timm("tf_efficientnet_lite0", 2, 3, 4), ["conv_stem", "bn1", "blocks.0"], ["blocks.1", "blocks.6"]),
        (from_timm("mobilenetv3_small_050", 2, 3, 4), ["conv_stem", "bn1", "blocks.0"], ["blocks.1"]),
        (from_timm("convnextv2_atto", 1, 2, 3), ["stem_0", "stem_1", "stages_0"], ["stages_1", "stages_3"]),
        (from_timm("regnetx_002", 2, 3, 4), ["stem", "s1"], ["s2", "s4"]),
        (
            {"model_type": "resnet", "embedding_size": 8, **NARROW, **STAGES},
            ["embedder", "encoder.stages.0"],
            ["encoder.stages.1"],
        ),
        ({"model_type": "convnextv2", **NARROW, **STAGES}, ["embeddings", "encoder.stages.0"], ["encoder.stages.1"]),
    ],
    ids=lambda value: value.get("backbone", value["model_type"]) if isinstance(value, dict) else "",
)
def test_two_frozen_stages_are_the_stem_and_the_first(backbone, frozen, free):
    with torch.device("meta"):
        model = KineTrackForVideoAnalysis(KineTrackConfig(backbone_config=backbone, **SMALL))
    freeze_stages(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    freeze_stages(model, 2)
    whole = model.kinetrack.encoder.backbone
    inner = getattr(whole, "_backbone", whole)
    for names, wanted in ((frozen, False), (free, True)):
        for name in names:
            parameters = list(inner.get_submodule(name).parameters())
            assert parameters and all(parameter.requires_grad is wanted for parameter in parameters), name
    beyond = [p for name, p in model.named_parameters() if "encoder.backbone." not in name]
    assert all(parameter.requires_grad for parameter in beyond)


def test_backbone_without_stages_says_so():
    with torch.device("meta"):
        backbone = from_timm("vit_tiny_patch16_224", -1)
        model = KineTrackForVideoAnalysis(KineTrackConfig(backbone_config=backbone, **SMALL))
    with pytest.raises(ValueError, match="`frozen_stages` is not known for a FeatureGetterNet backbone; set it to 0"):
        freeze_stages(model, 2)
