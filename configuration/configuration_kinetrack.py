"""Every architectural number of KineTrack, validated when the configuration is made."""

from copy import deepcopy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

# Feature maps that sit at strides 8, 16 and 32 in the two families of backbone configuration.
_RESNET_STAGES = ["stage2", "stage3", "stage4"]
_TIMM_INDICES = [2, 3, 4]
# What can be tuned about association; the names are arguments of `KineTracker`.
_TRACKER_SETTINGS = ("low_threshold", "new_track_threshold", "min_hits", "min_similarity", "min_iou_low") + (
    "appearance_weight",
    "max_appearance_distance",
    "embedding_momentum",
    "max_lost_seconds",
    "max_unsure_seconds",
)

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's encoder class. 25 M parameters; meant for a GPU.
    "base": {
        "backbone_config": {"model_type": "resnet", "out_features": _RESNET_STAGES},
        "hidden_size": 256,
        "motion_channels": 64,
        "embedding_size": 128,
    },
    # Real time on a laptop CPU: 3.4 M parameters in the encoder, no squeeze-and-excite, ReLU6.
    "nano": {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "tf_efficientnet_lite0",
            "out_indices": _TIMM_INDICES,
        },
        "hidden_size": 128,
        "motion_channels": 32,
        "attention_window": 16,
        "embedding_size": 64,
    },
}


class PipelineTasks(dict):
    """The tasks of `config.custom_pipelines`, of which the first is the one meant when none is named.

    Transformers infers the task of a model only when `len(custom_pipelines) == 1`, yet uses a model's own class for a
    task only when that task is listed, too. So this mapping holds every task and counts as one.
    """

    def __len__(self) -> int:
        return min(1, super().__len__())


@strict
class KineTrackConfig(PreTrainedConfig):
    r"""
    Configuration of all KineTrack models (arXiv 2507.22421). The defaults are `kinetrack-base`, the paper's ResNet-50.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            Any 2D backbone with feature maps at strides 8, 16 and 32. Defaults to `ResNetConfig()` (ResNet-50);
            timm models come through `TimmBackboneConfig(backbone=..., out_indices=[2, 3, 4])`.
        hidden_size (`int`, *optional*, defaults to 256):
            Channels D of the pyramid, the propagation and the attention.
        motion_channels (`int`, *optional*, defaults to 64):
            Channels of the frame differences that are added to the encoder's features; 0 leaves them out.
        motion_reach (`int`, *optional*, defaults to 0):
            Largest displacement, in cells of stride 8, at which a frame is correlated with the one before; 0 leaves
            displacements out.
        keypoints (`list[str]`, *optional*):
            Names of people's keypoints. A model with keypoints finds them, follows them through the attention's window
            and adds what their movement says to the logits; none by default.
        keypoint_channels (`int`, *optional*, defaults to 64): Width of the head that finds keypoints.
        pose_channels (`int`, *optional*, defaults to 128): Width of the network over time that reads them.
        pose_dropout (`float`, *optional*, defaults to 0.3): Dropout in that network.
        statistics_channels (`int`, *optional*, defaults to 0):
            Channels of the backbone's last map, if statistics of it and of the frame differences are remembered of
            every region and add to the logits; 0: none are.
        num_propagation_layers (`int`, *optional*, defaults to 2):
            Blocks of parallel temporal propagation; 0 switches propagation off.
        temporal_kernel_size (`int`, *optional*, defaults to 3):
            Frames the short causal convolution of a propagation block looks at, the present one included.
        bidirectional (`bool`, *optional*, defaults to `False`):
            Adds a backward scan for offline clips. Such a model cannot stream.
        scan (`str`, *optional*, defaults to `"auto"`):
            Form of the recurrence: `"loop"`, `"chunked"`, or `"auto"` (loop on CPU, chunked elsewhere).
        scan_chunk_size (`int`, *optional*, defaults to 16):
            Frames a chunk of the chunked scan.
        spatial_attention (`bool`, *optional*, defaults to `True`):
            Eq. 3-4 of the paper; when off, cells are averaged with equal weight.
        temporal_attention (`bool`, *optional*, defaults to `True`):
            Eq. 5 of the paper; when off, frames are averaged with equal weight.
        attention_window (`int`, *optional*, defaults to 32):
            Frames (at `frame_rate`) that the temporal softmax looks back over; `None` means all frames seen.
        frame_rate (`float`, *optional*, defaults to 12.5):
            Rate in Hz at which the temporal part runs.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of a clip when a pipeline samples one.
        classification_head (`bool`, *optional*, defaults to `True`): Whether `KineTrackForVideoAnalysis` has it.
        tracking_head (`bool`, *optional*, defaults to `True`): Whether `KineTrackForVideoAnalysis` has it.
        label_groups (`dict[str, list[str]]`, *optional*):
            Further, separately normalised groups of clip labels, such as `{"fight": ["noFight", "fight"]}`. The primary
            group is `id2label`, as in every Transformers classifier.
        object_classes (`list[str]`, *optional*, defaults to `["person"]`):
            Classes of the detection heatmap.
        embedding_size (`int`, *optional*, defaults to 128):
            Channels of the L2-normalised identity embedding.
        classifier_dropout (`float`, *optional*, defaults to 0.2): Dropout before the action classifier.
        label_smoothing (`float`, *optional*, defaults to 0.1): Smoothing of the action cross-entropy.
        focal_alpha (`float`, *optional*, defaults to 2.0): Exponent on the probability in the heatmap's focal loss.
        focal_beta (`float`, *optional*, defaults to 4.0): Exponent of the penalty reduction near object centres.
        center_radius (`float`, *optional*, defaults to 0.25):
            Cells whose centre is within this fraction of a box's width and height learn its distances.
        contrastive_temperature (`float`, *optional*, defaults to 0.1): Temperature of the identity loss.
        loss_weights (`dict[str, float]`, *optional*):
            Factors of the terms `action`, `region`, `attention`, `heatmap`, `box`, `identity`, `keypoint` and
            `group`; 0 is off.
        action_temperature (`float`, *optional*, defaults to 1.0):
            Divides the action logits before the softmax; calibrated on held-out clips after training.
        action_threshold (`float`, *optional*, defaults to 0.0):
            Below this probability an action is reported as "uncertain".
        detection_threshold (`float`, *optional*, defaults to 0.4): Default score threshold for reported objects.
        tracker_settings (`dict[str, float]`, *optional*):
            Settings of `KineTracker` that sessions start from, as `kinetrack tune` writes them. Its scores hold for
            `detection_threshold`; a session that is given another threshold ignores them.
        trained (`bool`, *optional*, defaults to `False`):
            Set at the end of a training run. Everything that shows results to people refuses an untrained model.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of new weights.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5): Epsilon of the per-location normalisations.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value of the wrong type or an impossible combination; the
            message names the field.

    Example:
        >>> from kinetrack import KineTrackConfig
        >>> config = KineTrackConfig.from_preset("nano", id2label={0: "walk", 1: "run"})
        >>> config.num_labels
        2
    """

    model_type = "kinetrack"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    motion_channels: int = 64
    motion_reach: int = 0
    keypoints: list[str] | None = None
    keypoint_channels: int = 64
    pose_channels: int = 128
    pose_dropout: float | int = 0.3
    statistics_channels: int = 0
    num_propagation_layers: int = 2
    temporal_kernel_size: int = 3
    bidirectional: bool = False
    scan: str = "auto"
    scan_chunk_size: int = 16
    spatial_attention: bool = True
    temporal_attention: bool = True
    attention_window: int | None = 32
    frame_rate: float | int = 12.5
    num_frames: int = 16
    classification_head: bool = True
    tracking_head: bool = True
    label_groups: dict[str, list[str]] | None = None
    object_classes: list[str] | None = None
    embedding_size: int = 128
    classifier_dropout: float | int = 0.2
    label_smoothing: float | int = 0.1
    focal_alpha: float | int = 2.0
    focal_beta: float | int = 4.0
    center_radius: float | int = 0.25
    contrastive_temperature: float | int = 0.1
    loss_weights: dict[str, float | int] | None = None
    action_temperature: float | int = 1.0
    action_threshold: float | int = 0.0
    detection_threshold: float | int = 0.4
    tracker_settings: dict[str, float | int] | None = None
    trained: bool = False
    initializer_range: float | int = 0.02
    layer_norm_eps: float = 1e-5

    # What `transformers.Trainer` need not collect over a whole evaluation: all but the logits of actions.
    keys_to_ignore_at_inference = [
        "group_logits",
        "heatmap_logits",
        "keypoint_logits",
        "cell_features",
        "distances",
        "embeddings",
        "spatial_attention",
        "temporal_attention",
        "last_hidden_state",
        "state",
        "hidden_states",
        "attentions",
        "loss_terms",
    ]
    # Strides of the grids; the pyramid is built for the first two, statistics are of the backbone's last map.
    output_stride = 8
    feature_stride = 16
    statistics_stride = 32

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = CONFIG_MAPPING["resnet"](out_features=list(_RESNET_STAGES))
        elif isinstance(self.backbone_config, dict):
            settings = deepcopy(self.backbone_config)  # the backbone's configuration keeps the lists it is given
            model_type = settings.pop("model_type", None)
            if model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"`backbone_config` needs a `model_type` that transformers knows, got {model_type!r}. "
                    "Use e.g. {'model_type': 'resnet'} or {'model_type': 'timm_backbone', 'backbone': 'resnet18'}."
                )
            self.backbone_config = CONFIG_MAPPING[model_type](**settings)
        self.label_groups = dict(self.label_groups or {})
        self.object_classes = ["person"] if self.object_classes is None else list(self.object_classes)
        self.keypoints = list(self.keypoints or [])
        weights = {"action": 1.0, "region": 1.0, "movement": 1.0, "group": 0.5, "attention": 0.1}
        weights |= {"heatmap": 1.0, "box": 1.0, "identity": 0.5, "keypoint": 1.0}
        unknown = set(self.loss_weights or {}) - set(weights)
        if unknown:
            raise ValueError(f"`loss_weights` has unknown terms {sorted(unknown)}; known are {sorted(weights)}.")
        self.loss_weights = weights | (self.loss_weights or {})
        super().__post_init__(**kwargs)
        if getattr(self, "custom_pipelines", None):
            self.custom_pipelines = PipelineTasks(self.custom_pipelines)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {name: index for index, name in self.id2label.items()}

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in the library, but new names of classes (`id2label`) bring their own number and `label2id`."""
        if kwargs.get("id2label") is not None:
            names = kwargs["id2label"]
            kwargs.setdefault("label2id", {name: int(number) for number, name in names.items()})
            if kwargs.get("num_labels") == len(names):
                del kwargs["num_labels"]
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides) -> "KineTrackConfig":
        """Makes the configuration of a preset, `"base"` or `"nano"` (a leading `kinetrack-` is allowed).

        Raises:
            ValueError: no such preset.
        """
        preset = name.removeprefix("kinetrack-")
        if preset not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. Choose one of {sorted(PRESETS)}.")
        return cls(**{**PRESETS[preset], **overrides})

    @property
    def region_size(self) -> int:
        """Channels of what is remembered of a region in a frame.

        f, x, y and concentration of every keypoint, and mean, deviation and soft maximum of what statistics are of.
        """
        return self.hidden_size + 3 * len(self.keypoints) + 3 * self.cell_channels

    @property
    def cell_channels(self) -> int:
        """Channels that region statistics are of: the backbone's last map and the frame differences, or none."""
        return self.statistics_channels + self.motion_channels if self.statistics_channels else 0

    @property
    def summary_size(self) -> int:
        """Channels of what the action head reads.

        R, with keypoints mean and maximum of the movement's features, and the region's statistics in the window.
        """
        movement = 2 * self.pose_channels if self.keypoints else 0
        return self.hidden_size + movement + self.window_statistics_size

    @property
    def window_statistics_size(self) -> int:
        """Channels of the last part of a summary: mean, deviation and mean step of each of the region's statistics."""
        return 9 * self.cell_channels

    def validate_architecture(self):
        """Checks combinations; called by `@strict` after every construction. Raises `ValueError` naming the field."""
        sizes = ("hidden_size", "embedding_size", "keypoint_channels", "pose_channels")
        for field in (*sizes, "num_frames", "temporal_kernel_size", "scan_chunk_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"`{field}` must be at least 1, got {getattr(self, field)}.")
        if self.motion_channels < 0:
            raise ValueError(f"`motion_channels` must be at least 0, got {self.motion_channels}.")
        if self.motion_reach < 0 or (self.motion_reach and not self.motion_channels):
            raise ValueError(
                f"`motion_reach` must be at least 0, and 0 without `motion_channels`, got {self.motion_reach}."
            )
        if len(set(self.keypoints)) != len(self.keypoints):
            raise ValueError(f"`keypoints` must be distinct names, got {self.keypoints}.")
        if self.keypoints and self.attention_window is None:
            raise ValueError("`keypoints` are followed through `attention_window`; it must be a number of frames.")
        if self.statistics_channels < 0:
            raise ValueError(f"`statistics_channels` must be at least 0, got {self.statistics_channels}.")
        if self.statistics_channels and self.attention_window is None:
            raise ValueError("`statistics_channels` are of an `attention_window`; it must be a number of frames.")
        if self.num_propagation_layers < 0:
            raise ValueError(f"`num_propagation_layers` must be at least 0, got {self.num_propagation_layers}.")
        if self.scan not in ("auto", "loop", "chunked"):
            raise ValueError(f"`scan` must be 'auto', 'loop' or 'chunked', got {self.scan!r}.")
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(f"`attention_window` must be at least 1 frame or None, got {self.attention_window}.")
        if self.bidirectional and self.num_propagation_layers == 0:
            raise ValueError("`bidirectional` needs at least one propagation layer; `num_propagation_layers` is 0.")
        if not (self.classification_head or self.tracking_head):
            raise ValueError("`classification_head` and `tracking_head` are both off; leave at least one on.")
        if not self.object_classes or len(set(self.object_classes)) != len(self.object_classes):
            raise ValueError(f"`object_classes` must be distinct names, at least one, got {self.object_classes}.")
        for name, classes in self.label_groups.items():
            if not name or "." in name:
                raise ValueError(f"`label_groups` needs names without dots that are not empty, got {name!r}.")
            if len(classes) < 2 or len(set(classes)) != len(classes):
                raise ValueError(f"`label_groups[{name!r}]` must be two or more distinct names, got {classes}.")
        for field in ("frame_rate", "action_temperature", "contrastive_temperature", "center_radius"):
            if not getattr(self, field) > 0:
                raise ValueError(f"`{field}` must be positive, got {getattr(self, field)}.")
        for field in ("action_threshold", "detection_threshold"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"`{field}` is a probability between 0 and 1, got {getattr(self, field)}.")
        unknown = set(self.tracker_settings or {}) - set(_TRACKER_SETTINGS)
        if unknown:
            raise ValueError(
                f"`tracker_settings` has unknown names {sorted(unknown)}; known are {sorted(_TRACKER_SETTINGS)}."
            )
        for name, value in (self.tracker_settings or {}).items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"`tracker_settings[{name!r}]` must be a number of at least 0, got {value}.")
        low = (self.tracker_settings or {}).get("low_threshold", 0.0)
        if low > self.detection_threshold:
            raise ValueError(
                f"`tracker_settings['low_threshold']` ({low}) must not exceed `detection_threshold` "
                f"({self.detection_threshold}). Tune again after calibrating."
            )
        for name, weight in self.loss_weights.items():
            if not weight >= 0:
                raise ValueError(f"`loss_weights[{name!r}]` must be at least 0, got {weight}.")
        for field in ("classifier_dropout", "pose_dropout", "label_smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"`{field}` must be at least 0 and below 1, got {getattr(self, field)}.")
