"""Classifiers on frozen features that differ in one part alone: what mixes the frames.

    cells (B, T, h, w, C) -> linear -> two blocks (norm, 3x3 in space, module over time, residual) -> norm
        -> spatial attention (Eqs. 3-4) -> mean over time, or Eq. 5 -> action head

The blocks of KineTrack are the project's own `TemporalPropagation`; the rivals' modules are PyTorch's. Every module
runs along time at each cell of the grid, as propagation does. A rival's inner width (KineTrack's own width, for its
variants) is chosen so that all models have the same number of parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ...configuration.configuration_kinetrack import KineTrackConfig
from ...modeling.attention_kinetrack import HierarchicalAttention
from ...modeling.difference_kinetrack import MotionEncoder
from ...modeling.heads_kinetrack import ActionHead
from ...modeling.initialisation_kinetrack import KineTrackPreTrainedModel
from ...modeling.propagation_kinetrack import TemporalPropagation

PARAMETER_TOLERANCE = 0.05


class FrameByFrame(nn.Module):
    """Two layers on every frame alone: what is left of a block without time."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, size))

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """(N, T, D) -> (N, T, D)."""
        return self.layers(series)


class CausalConvolution(nn.Module):
    """Three frames, the present one last, as in temporal convolutional networks (arXiv 1803.01271)."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.over_time = nn.Conv1d(size, width, 3)
        self.output = nn.Linear(width, size)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """(N, T, D) -> (N, T, D)."""
        padded = nn.functional.pad(series.transpose(1, 2), (2, 0))  # (N, D, T + 2)
        return self.output(nn.functional.gelu(self.over_time(padded)).transpose(1, 2))


class Recurrence(nn.Module):
    """PyTorch's GRU or LSTM."""

    def __init__(self, kind: type[nn.RNNBase], size: int, width: int):
        super().__init__()
        self.cells = kind(size, width, batch_first=True)
        self.output = nn.Linear(width, size)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """(N, T, D) -> (N, T, D)."""
        return self.output(self.cells(series)[0])


class SelfAttention(nn.Module):
    """Four heads over all frames, which know their place by sines (arXiv 1706.03762)."""

    heads = 4

    def __init__(self, size: int, width: int):
        super().__init__()
        self.width = self.heads * max(1, round(width / self.heads))
        self.inputs = nn.Linear(size, 3 * self.width)
        self.output = nn.Linear(self.width, size)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """(N, T, D) -> (N, T, D)."""
        series = series + _sines(series.shape[1], series.shape[2]).to(series)
        split = self.inputs(series).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, N, heads, T, d)
        mixed = nn.functional.scaled_dot_product_attention(*split)  # (N, heads, T, d)
        return self.output(mixed.transpose(1, 2).flatten(2))


def _sines(length: int, size: int) -> torch.Tensor:
    """Places in time (T, D)."""
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]


class RivalBlock(nn.Module):
    """The frame of a propagation block with another module over time in it: the same norm, 3x3 and residual."""

    def __init__(self, config, module: nn.Module):
        super().__init__()
        size = config.hidden_size
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.spatial_mixing = nn.Conv2d(size, size, 3, padding=1, groups=size)
        self.module = module

    def forward(self, features: torch.Tensor, *_) -> tuple[torch.Tensor, None]:
        """(B, T, H, W, D) -> the same; no state."""
        batch, length, height, width, _ = features.shape
        frames = self.norm(features).flatten(0, 1).permute(0, 3, 1, 2)  # (BT, D, H, W)
        mixed = self.spatial_mixing(frames).permute(0, 2, 3, 1).unflatten(0, (batch, length))
        series = mixed.permute(0, 2, 3, 1, 4).flatten(0, 2)  # (BHW, T, D)
        found = self.module(series).unflatten(0, (batch, height, width)).permute(0, 3, 1, 2, 4)
        return features + found, None


@dataclass(frozen=True)
class Form:
    """How a classifier is built.

    Attributes:
        module: makes the module of a rival's block from (size, width); None for KineTrack's own blocks.
        settings: of `KineTrackConfig`.
        differences: whether KineTrack's motion encoder reads the stride-16 maps.
    """

    module: Callable[[int, int], nn.Module] | None = None
    settings: dict | None = None
    differences: bool = False


FORMS = {
    "mean": Form(FrameByFrame),
    "convolution": Form(CausalConvolution),
    "gru": Form(lambda size, width: Recurrence(nn.GRU, size, width)),
    "lstm": Form(lambda size, width: Recurrence(nn.LSTM, size, width)),
    "self-attention": Form(SelfAttention),
    "propagation": Form(),
    "bidirectional": Form(settings={"bidirectional": True}),
    "propagation+beta": Form(settings={"temporal_attention": True}),
    "propagation+differences": Form(differences=True),
}
REFERENCE = "propagation"


class ClipClassifier(KineTrackPreTrainedModel):
    """One of `FORMS`; weights are initialised as in every KineTrack model.

    Args:
        config: `KineTrackConfig` with the classes; `hidden_size` is D.
        form: what mixes the frames.
        width: inner width of a rival's module.
        channels: C of the cells, and of the stride-16 maps that the motion encoder reads.
    """

    def __init__(self, config: KineTrackConfig, form: Form, width: int, channels: tuple[int, int]):
        super().__init__(config)
        size = config.hidden_size
        self.project = nn.Linear(channels[0], size)
        self.motion = MotionEncoder(config, channels[1]) if form.differences else None
        if form.module is None:
            blocks = [TemporalPropagation(config) for _ in range(config.num_propagation_layers)]
        else:
            blocks = [RivalBlock(config, form.module(size, width)) for _ in range(config.num_propagation_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.attention = HierarchicalAttention(config)
        self.head = ActionHead(config)
        self.post_init()

    def forward(self, cells: torch.Tensor, middle: torch.Tensor | None = None, last: int | None = None) -> torch.Tensor:
        """Logits of clips.

        Args:
            cells: as for `look`.
            middle: as for `look`.
            last: how many frames, counted from the end, the answer is read from; all when None. The frames before them
                are still seen by the module over time.

        Returns:
            (B, classes).
        """
        scores, pooled = self.look(cells, middle)
        first = 0 if last is None else max(scores.shape[1] - last, 0)
        _, summary, _ = self.attention.attend_time(scores[:, first:], pooled[:, first:])
        return self.head(summary)[0]

    def look(self, cells: torch.Tensor, middle: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What Eq. 5 reads: w_tau . f (B, T) and f (B, T, D) of every frame.

        Args:
            cells: (B, T, h, w, C).
            middle: (B, T, C', 2h, 2w), for a form with differences.
        """
        batch, length = cells.shape[:2]
        features = self.project(cells)  # (B, T, h, w, D)
        if self.motion is not None:
            change, _, _ = self.motion(middle.flatten(0, 1), batch)  # (BT, D, h, w)
            features = features + change.permute(0, 2, 3, 1).unflatten(0, (batch, length))
        everywhere = features.new_ones(batch, 1, *features.shape[2:4], 1)
        for block in self.blocks:
            features, _ = block(features, everywhere)
        features = self.norm(features)
        overlap = features.new_ones(batch * length, 1, *features.shape[2:4])
        _, pooled, scores = self.attention.attend_space(features.flatten(0, 1), overlap)
        return scores.view(batch, length), pooled.view(batch, length, -1)


def build_classifier(
    name: str, num_labels: int, channels: tuple[int, int], hidden_size: int = 64, dropout: float = 0.5
) -> ClipClassifier:
    """A classifier of `FORMS` with as many parameters as the reference of that hidden size.

    Args:
        name: of the form.
        num_labels: classes.
        channels: see `ClipClassifier`.
        hidden_size: D of the reference and of the rivals.
        dropout: before the classifier.

    Raises:
        ValueError: no width brings the number of parameters within `PARAMETER_TOLERANCE` of the reference.
    """

    def make(form: Form, width: int) -> ClipClassifier:
        own = form.module is None
        settings = {"temporal_attention": False, "attention_window": None} | (form.settings or {})
        settings["motion_channels"] = hidden_size // 4 if form.differences else 0
        config = KineTrackConfig.from_preset(
            "nano",
            hidden_size=width if own else hidden_size,
            num_labels=num_labels,
            classifier_dropout=dropout,
            **settings,
        )
        return ClipClassifier(config, form, width, channels)

    def count(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(make(FORMS[name], width))

    with torch.device("meta"):
        wanted = count_parameters(make(FORMS[REFERENCE], hidden_size))
    low, high = 1, 8 * hidden_size
    while low < high:  # the smallest width that reaches the number
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle + 1, high)
    width = min((low, max(low - 1, 1)), key=lambda width: abs(count(width) - wanted))
    if abs(count(width) / wanted - 1) > PARAMETER_TOLERANCE:
        raise ValueError(
            f"{name} has {count(width)} parameters at best, the reference {wanted}: more than "
            f"{PARAMETER_TOLERANCE:.0%} apart."
        )
    return make(FORMS[name], width)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
