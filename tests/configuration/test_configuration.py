"""The configuration: defaults, presets, wrong values and combinations, saving and loading."""

import inspect
import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from kinetrack.configuration import configuration_kinetrack
from kinetrack.configuration.configuration_kinetrack import PRESETS, KineTrackConfig
from kinetrack.processing.tracking_kinetrack import KineTracker
from transformers import ResNetConfig, TimmBackboneConfig


def test_default_is_the_papers_resnet_50():
    config = KineTrackConfig()
    assert isinstance(config.backbone_config, ResNetConfig)
    assert list(config.backbone_config.depths) == [3, 4, 6, 3]
    assert config.backbone_config.out_features == ["stage2", "stage3", "stage4"]
    assert config.model_type == "kinetrack"
    assert config.bidirectional is False
    assert config.object_classes == ["person"]
    assert config.frame_rate == 12.5
    assert config.trained is False


def test_base_preset_equals_the_default():
    assert KineTrackConfig.from_preset("base").to_dict() == KineTrackConfig().to_dict()


def test_nano_preset_is_lite0_through_timm():
    config = KineTrackConfig.from_preset("kinetrack-nano")
    assert isinstance(config.backbone_config, TimmBackboneConfig)
    assert config.backbone_config.backbone == "tf_efficientnet_lite0"
    assert tuple(config.backbone_config.out_indices) == (2, 3, 4)


def test_preset_takes_overrides_and_stays_as_it_was():
    before = json.dumps(PRESETS, sort_keys=True)
    config = KineTrackConfig.from_preset("nano", hidden_size=32, id2label={0: "walk", 1: "run", 2: "sit"})
    assert (config.hidden_size, config.num_labels, config.embedding_size) == (32, 3, 64)
    assert config.label2id == {"walk": 0, "run": 1, "sit": 2}
    config.loss_weights["box"] = 9.0
    config.backbone_config.out_indices = [0]
    assert json.dumps(PRESETS, sort_keys=True) == before
    assert KineTrackConfig.from_preset("nano").loss_weights["box"] == 1.0


def test_editing_one_configuration_leaves_the_next_alone():
    first = KineTrackConfig()
    first.object_classes.append("ball")
    first.backbone_config.out_features.append("stage1")
    KineTrackConfig.from_preset("base").backbone_config.out_features.append("stage1")
    for second in (KineTrackConfig(), KineTrackConfig.from_preset("base")):
        assert second.object_classes == ["person"]
        assert second.backbone_config.out_features == ["stage2", "stage3", "stage4"]


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="'huge'.*'base', 'nano'"):
        KineTrackConfig.from_preset("huge")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_save_and_load_round_trip(preset, tmp_path):
    config = KineTrackConfig.from_preset(
        preset,
        id2label={0: "walk", 1: "run", 2: "sit"},
        label_groups={"fight": ["noFight", "fight"]},
        object_classes=["person", "ball"],
        attention_window=None,
        loss_weights={"box": 2.0},
        action_temperature=1.7,
        action_threshold=0.45,
        trained=True,
    )
    config.save_pretrained(tmp_path)
    loaded = KineTrackConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.backbone_config) is type(config.backbone_config)
    assert loaded.id2label == {0: "walk", 1: "run", 2: "sit"}  # keys are numbers again
    assert loaded.attention_window is None
    assert loaded.trained is True
    assert loaded.loss_weights["box"] == 2.0


def test_loss_weights_given_in_part_keep_the_other_defaults():
    weights = KineTrackConfig(loss_weights={"box": 3.0}).loss_weights
    assert weights == {"action": 1.0, "region": 1.0, "heatmap": 1.0, "box": 3.0, "identity": 0.5} | {
        "group": 0.5,
        "attention": 0.1,
        "keypoint": 1.0,
        "movement": 1.0,
    }


@pytest.mark.parametrize(
    ("field", "overrides"),
    [
        ("hidden_size", {"hidden_size": 0}),
        ("embedding_size", {"embedding_size": 0}),
        ("num_frames", {"num_frames": 0}),
        ("temporal_kernel_size", {"temporal_kernel_size": 0}),
        ("scan_chunk_size", {"scan_chunk_size": 0}),
        ("num_propagation_layers", {"num_propagation_layers": -1}),
        ("scan", {"scan": "associative"}),
        ("attention_window", {"attention_window": 0}),
        ("keypoints", {"keypoints": ["head", "head"]}),
        ("keypoints", {"keypoints": ["head"], "attention_window": None}),
        ("statistics_channels", {"statistics_channels": 16, "attention_window": None}),
        ("statistics_channels", {"statistics_channels": -1}),
        ("keypoint_channels", {"keypoint_channels": 0}),
        ("pose_channels", {"pose_channels": 0}),
        ("pose_dropout", {"pose_dropout": 1.0}),
        ("bidirectional", {"bidirectional": True, "num_propagation_layers": 0}),
        ("tracking_head", {"classification_head": False, "tracking_head": False}),
        ("object_classes", {"object_classes": []}),
        ("object_classes", {"object_classes": ["person", "person"]}),
        ("label_groups", {"label_groups": {"fight": ["fight"]}}),
        ("label_groups", {"label_groups": {"fight": ["fight", "fight"]}}),
        ("label_groups", {"label_groups": {"street.fight": ["no", "yes"]}}),
        ("label_groups", {"label_groups": {"": ["no", "yes"]}}),
        ("frame_rate", {"frame_rate": 0}),
        ("frame_rate", {"frame_rate": float("nan")}),
        ("action_temperature", {"action_temperature": 0.0}),
        ("contrastive_temperature", {"contrastive_temperature": -0.1}),
        ("center_radius", {"center_radius": 0}),
        ("action_threshold", {"action_threshold": 1.5}),
        ("detection_threshold", {"detection_threshold": -0.1}),
        ("classifier_dropout", {"classifier_dropout": 1.0}),
        ("label_smoothing", {"label_smoothing": -0.1}),
        ("loss_weights", {"loss_weights": {"colour": 1.0}}),
        ("loss_weights", {"loss_weights": {"box": -1.0}}),
        ("backbone_config", {"backbone_config": {"depths": [1, 1, 1, 1]}}),
        ("backbone_config", {"backbone_config": {"model_type": "no_such_model"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_combination_raises_naming_the_field(field, overrides):
    with pytest.raises((ValueError, StrictDataclassError), match=f"`{field}"):
        KineTrackConfig(**overrides)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "256"),
        ("hidden_size", 256.5),
        ("bidirectional", "yes"),
        ("attention_window", 3.5),
        ("label_groups", ["fight"]),
        ("object_classes", "person"),
        ("frame_rate", "fast"),
    ],
)
def test_wrong_type_raises_naming_the_field(field, value):
    with pytest.raises(StrictDataclassError, match=f"'{field}'"):
        KineTrackConfig(**{field: value})


def test_tracker_settings_are_those_of_the_tracker(tmp_path):
    tracker = set(inspect.signature(KineTracker).parameters)
    settings = dict.fromkeys(configuration_kinetrack._TRACKER_SETTINGS, 0.4)
    assert set(settings) < tracker
    KineTrackConfig(tracker_settings=settings).save_pretrained(tmp_path)
    assert KineTrackConfig.from_pretrained(tmp_path).tracker_settings == settings


@pytest.mark.parametrize(
    "settings", [{"min_hit": 2}, {"high_threshold": 0.4}, {"min_hits": -1}, {"low_threshold": 0.9}]
)
def test_impossible_tracker_settings_are_refused_by_name(settings):
    with pytest.raises(StrictDataclassError, match=f"tracker_settings.*{next(iter(settings))}"):
        KineTrackConfig(tracker_settings=settings)
