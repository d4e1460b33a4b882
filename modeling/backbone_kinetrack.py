"""Any 2D backbone, seen as three feature maps at strides 8, 16 and 32.

Hierarchical networks give them as they are. A plain vision transformer has one map at stride 16, from which a simple
feature pyramid makes the others (ViTDet, arXiv 2203.16527, Section 3).
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone

STRIDES = (8, 16, 32)

# How timm's networks with position embeddings or windows are told to take any size; not all know each of them.
_ANY_SIZE = ({"strict_img_size": False}, {"dynamic_img_size": True})


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each location of (N, D, H, W)."""

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, D, H, W) -> (N, D, H, W); free of copies when the input is in channels_last layout."""
        channels_last = inputs.permute(0, 2, 3, 1)  # (N, H, W, D)
        return F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class SimpleFeaturePyramid(nn.Module):
    """One map at stride 16 -> three at strides 8, 16 and 32: up by a learned 2x2, as it is, and down by pooling.

    Args:
        num_channels: C of the map.
        eps: of the normalisations.
    """

    def __init__(self, num_channels: int, eps: float):
        super().__init__()
        self.channels = [num_channels // 2, num_channels, num_channels]
        self.norm = ChannelNorm(num_channels, eps)
        # A transposed 2x2 convolution with stride 2, written as one that every runtime exports.
        self.up = nn.Conv2d(num_channels, 4 * self.channels[0], 1)
        self.up_norm = ChannelNorm(self.channels[0], eps)

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """One (N, C, H/16, W/16) -> (N, C/2, H/8, W/8), (N, C, H/16, W/16), (N, C, H/32, W/32)."""
        middle = self.norm(maps[0])
        return self.up_norm(F.pixel_shuffle(self.up(middle), 2)), middle, F.max_pool2d(middle, 2)


class ChannelsFirst(nn.Module):
    """Maps of networks that compute in (N, H, W, C), such as Swin, as (N, C, H, W)."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.channels = channels

    def forward(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """(N, H, W, C) each -> (N, C, H, W) each."""
        return tuple(feature_map.permute(0, 3, 1, 2) for feature_map in maps)


def build_backbone(config) -> nn.Module:
    """The backbone that `config.backbone_config` names, with new weights.

    timm's arguments go into `backbone_config["model_args"]`, such as `{"drop_path_rate": 0.1}`. Networks that timm
    builds for one input size are built for any, where they can.

    Raises:
        ValueError: a network that works at one input size only.
    """
    settings = config.backbone_config
    if settings.model_type != "timm_backbone":
        return AutoBackbone.from_config(settings)
    arguments = dict(getattr(settings, "model_args", None) or {})
    if not _has_fixed_size(settings.backbone) or arguments.keys() & {"img_size", *_ANY_SIZE[0], *_ANY_SIZE[1]}:
        return AutoBackbone.from_config(settings, **arguments)
    for option in _ANY_SIZE:
        try:
            return AutoBackbone.from_config(settings, **arguments, **option)
        except TypeError as error:
            if next(iter(option)) not in str(error):
                raise
    raise ValueError(
        f"timm's {settings.backbone} works at one input size only, and videos differ. Choose another backbone, or fix "
        "the canvas to a (height, width) of multiples of 32 in `backbone_config`: "
        "model_args={'img_size': [height, width]}, and the same `size` in the video processor."
    )


def fit_strides(backbone: nn.Module, eps: float) -> nn.Module | None:
    """What has to follow the backbone so that there are three maps (N, C, H, W) at strides 8, 16 and 32.

    Args:
        backbone: from `build_backbone`.
        eps: of the normalisations.

    Returns:
        A module from maps to maps with `channels`, or None where the backbone's own maps will do.

    Raises:
        ValueError: the maps cannot be brought to these strides; the message says which `out_indices` would do.
    """
    channels, strides = list(backbone.channels), map_strides(backbone)
    if strides == [16]:
        return SimpleFeaturePyramid(channels[0], eps)
    if len(channels) != 3 or (strides is not None and strides != list(STRIDES)):
        found = f"{len(channels)} map{'s' if len(channels) != 1 else ''}"
        found += f" at stride {', '.join(map(str, strides))}" if strides else ""
        raise ValueError(
            "`backbone_config` must give three feature maps, at strides 8, 16 and 32 (or one at stride 16, as plain "
            f"vision transformers have), but gives {found}. {_advice(backbone)}"
        )
    layout = getattr(getattr(backbone, "_backbone", None), "output_fmt", "NCHW")
    return ChannelsFirst(channels) if str(getattr(layout, "value", layout)) == "NHWC" else None


def map_strides(backbone: nn.Module) -> list[int] | None:
    """Pixels of the input per cell of every map, or None where that is only seen in the maps themselves."""
    inner = getattr(backbone, "_backbone", None)
    if inner is not None:
        return [int(stride) for stride in inner.feature_info.reduction()]
    patch = getattr(backbone.config, "patch_size", None)
    if isinstance(patch, int) and len(set(backbone.channels)) == 1 and not hasattr(backbone.config, "depths"):
        return [patch] * len(backbone.channels)  # a plain vision transformer
    return None


def indices_of_strides(strides: list[int]) -> list[int] | None:
    """Places of strides 8, 16 and 32 among all of a network, `[-1]` for a plain transformer, None without them.

    Args:
        strides: of all the network's maps, from fine to coarse; of equal ones the last counts.
    """
    if set(strides) == {16}:
        return [-1]
    if not set(STRIDES) <= set(strides):
        return None
    return [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]


def _has_fixed_size(name: str) -> bool:
    import timm

    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(settings is not None and settings.fixed_input_size)


def _advice(backbone: nn.Module) -> str:
    inner = getattr(backbone, "_backbone", None)
    if inner is None and map_strides(backbone) is None:
        return f"Choose them by `out_features` from {backbone.stage_names} (ResNet: ['stage2', 'stage3', 'stage4'])."
    if inner is None:
        return "Of a plain vision transformer with `patch_size=16`, take one map, by one name in `out_features`."
    every = [int(level["reduction"]) for level in inner.feature_info.info]
    indices = indices_of_strides(every)
    if indices is None:
        return f"timm's {backbone.config.backbone} has only strides {sorted(set(every))}: choose another backbone."
    return f"Set `out_indices={indices}` for timm's {backbone.config.backbone}."
