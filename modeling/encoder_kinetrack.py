"""Spatial encoder: a 2D backbone on every frame and a small top-down pyramid (arXiv 2507.22421, Section 3.1).

Every normalisation here is per location over channels, or a BatchNorm with frozen statistics, so that nothing mixes
frames, samples or padding: a batch of N equals N alone and a clip equals its frames.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ..modeling.backbone_kinetrack import ChannelNorm, build_backbone, fit_strides
from ..modeling.pieces_kinetrack import in_pieces


class SeparableConv(nn.Module):
    """Depthwise convolution, pointwise 1x1, per-location normalisation, ReLU.

    Args:
        num_channels: D.
        eps: of the normalisation.
        kernel_size: of the depthwise convolution, odd.
    """

    def __init__(self, num_channels: int, eps: float, kernel_size: int = 3):
        super().__init__()
        self.depthwise = nn.Conv2d(
            num_channels, num_channels, kernel_size, padding=kernel_size // 2, groups=num_channels, bias=False
        )
        self.pointwise = nn.Conv2d(num_channels, num_channels, 1, bias=False)
        self.norm = ChannelNorm(num_channels, eps)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, D, H, W) -> (N, D, H, W)."""
        return self._mix(self.depthwise(inputs))

    def on_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """The outputs at K cells, given what is about each: (N, D, k, kK), side by side, -> (N, D, 1, K)."""
        weight = self.depthwise.weight  # (D, 1, k, k)
        return self._mix(F.conv2d(patches, weight, stride=weight.shape[-1], groups=len(weight)))

    def _mix(self, inputs):
        return F.relu(self.norm(self.pointwise(inputs)))


class SpatialEncoder(GradientCheckpointingLayer):
    """Backbone and pyramid: frames (N, 3, H, W) -> F (N, D, H/16, W/16) and P (N, D, H/8, W/8).

    Args:
        config: `KineTrackConfig`; `config.backbone_config` names any 2D backbone with strides 8, 16 and 32.
        with_pyramid: whether the stride-8 map P is made.

    Raises:
        ValueError: the backbone's feature maps are not at these strides and cannot be brought there.

    Attributes:
        channels (`list[int]`): of the three maps, from stride 8 to stride 32.
    """

    def __init__(self, config, with_pyramid: bool = True):
        super().__init__()
        size = config.hidden_size
        self.backbone = build_backbone(config)
        self.made_on_meta = any(parameter.is_meta for parameter in self.backbone.parameters())
        self.stride_adapter = fit_strides(self.backbone, config.layer_norm_eps)  # None where nothing is to be done
        channels = self.channels = list((self.stride_adapter or self.backbone).channels)
        self.fine_lateral = nn.Conv2d(channels[0], size, 1) if with_pyramid else None  # stride 8
        self.middle_lateral = nn.Conv2d(channels[1], size, 1)  # stride 16
        self.coarse_lateral = nn.Conv2d(channels[2], size, 1)  # stride 32
        self.smooth_features = SeparableConv(size, config.layer_norm_eps)  # stride 16
        self.smooth_pyramid = SeparableConv(size, config.layer_norm_eps) if with_pyramid else None  # stride 8

    @torch.no_grad()
    def initialize_backbone(self, config):
        """Fills what no checkpoint filled in a timm backbone made on the meta device: timm does so only in building."""
        if not self.made_on_meta or config.backbone_config.model_type != "timm_backbone":
            return
        tensors = self.backbone.state_dict(keep_vars=True)
        empty = [name for name, tensor in tensors.items() if not getattr(tensor, "_is_hf_initialized", False)]
        if empty:
            new = build_backbone(config).state_dict()
            for name in empty:
                init.copy_(tensors[name], new[name].to(tensors[name].device))

    def train(self, mode: bool = True) -> "SpatialEncoder":
        """Training mode for everything except the backbone's BatchNorms, whose statistics stay frozen."""
        super().train(mode)
        for module in self.backbone.modules():
            if hasattr(module, "running_var"):  # timm has such norms that are not PyTorch's
                module.eval()
        return self

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Encodes frames one by one.

        Args:
            frames: (N, 3, H, W), H and W multiples of 32.

        Returns:
            F (N, D, H/16, W/16); P (N, D, H/8, W/8), or None without a pyramid; and the backbone's own maps at strides
            8 and 32.

        Raises:
            ValueError: H or W is no multiple of 32, or the backbone's strides are not 8, 16 and 32.
        """
        return in_pieces(self._encode, frames)

    def _encode(self, frames):
        height, width = frames.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(
                f"The model input must have sides that are multiples of 32, got {height}x{width}. "
                "The video processor pads to such a canvas; set its `size` to multiples of 32."
            )
        maps = self.backbone(frames.contiguous(memory_format=torch.channels_last)).feature_maps
        if self.stride_adapter is not None:
            maps = self.stride_adapter(maps)
        expected = [(height // stride, width // stride) for stride in (8, 16, 32)]
        if [tuple(feature_map.shape[-2:]) for feature_map in maps] != expected:
            raise ValueError(
                f"`backbone_config` must give feature maps at strides 8, 16 and 32, so {expected} for this input, "
                f"but gives {[tuple(feature_map.shape[-2:]) for feature_map in maps]}."
            )
        fine, middle, coarse = maps
        middle = self.middle_lateral(middle) + _upsample(self.coarse_lateral(coarse))  # (N, D, H/16, W/16)
        features = self.smooth_features(middle)
        if self.fine_lateral is None:
            return features, None, fine, coarse
        return features, self.smooth_pyramid(self.fine_lateral(fine) + _upsample(middle)), fine, coarse


def _upsample(inputs: torch.Tensor) -> torch.Tensor:
    return F.interpolate(inputs, scale_factor=2.0, mode="nearest")
