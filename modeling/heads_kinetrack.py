"""Action and tracking heads (arXiv 2507.22421, Section 3.4; detection by centres after FairMOT, arXiv 2004.01888)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.encoder_kinetrack import ChannelNorm, SeparableConv


class ActionHead(nn.Module):
    """Norm, dropout and one linear layer a label group, on the representation R of the whole frame or of one region.

    With keypoints or region statistics, what follows R (the movement, and the statistics through the window) has a
    linear layer of its own, whose logits are added to those of the primary group: they see different things, and
    neither can keep the other from learning.

    Args:
        config: `KineTrackConfig`; `id2label` is the primary group, `label_groups` the further ones.
    """

    def __init__(self, config):
        super().__init__()
        self.size = config.hidden_size
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.group_classifiers = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, len(classes)) for name, classes in config.label_groups.items()}
        )
        movement = config.summary_size - config.hidden_size
        self.movement_classifier = nn.Linear(movement, config.num_labels) if movement else None

    def forward(self, representation: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """R (..., `config.summary_size`) -> logits (..., num_labels), and (..., n) for every further group.

        R (..., D) alone will do: then nothing is added for movement and statistics.
        """
        hidden = self.dropout(self.norm(representation[..., : self.size]))
        logits = self.classifier(hidden)
        if representation.shape[-1] > self.size:
            logits = logits + self.classify_movement(representation)
        return logits, {name: layer(hidden) for name, layer in self.group_classifiers.items()}

    def classify_movement(self, representation: torch.Tensor) -> torch.Tensor:
        """What movement and statistics alone say: R (..., `config.summary_size`) -> logits (..., num_labels)."""
        return self.movement_classifier(self.dropout(representation[..., self.size :]))


def prior_bias(share: float = 0.01) -> float:
    """The logit of a prior probability, for the bias of a new heatmap (RetinaNet, arXiv 1708.02002)."""
    return math.log(share / (1 - share))


class TrackingHead(nn.Module):
    """Detects objects by their centres on the stride-8 grid and describes their identity.

    The input is P + up(F * (1 + gamma * N * alpha)), N being the number of valid cells: where attention is uniform the
    factor is 1 + gamma, and no cell can be erased by attention elsewhere. gamma is learned and starts at 0.

    Args:
        config: `KineTrackConfig`.
    """

    def __init__(self, config):
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.stride = config.output_stride
        self.attention_gain = nn.Parameter(torch.zeros(1))  # gamma
        self.feature_norm = ChannelNorm(size, eps)
        self.stem = SeparableConv(size, eps)
        self.heatmap_branch = SeparableConv(size, eps)
        self.distance_branch = SeparableConv(size, eps)
        self.heatmap = nn.Conv2d(size, len(config.object_classes), 1)
        self.distance = nn.Conv2d(size, 4, 1)
        self.embedding = nn.Conv2d(size, config.embedding_size, 1)

    def forward(
        self, pyramid: torch.Tensor, features: torch.Tensor, spatial_attention: torch.Tensor, cell_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dense detection maps.

        Args:
            pyramid: P (N, D, H/8, W/8).
            features: F (N, D, H/16, W/16).
            spatial_attention: alpha (N, H/16, W/16).
            cell_mask: (N, 1, H/16, W/16), 1 for valid cells.

        Returns:
            heatmap logits (N, C, H/8, W/8); distances (N, 4, H/8, W/8) from the cell's centre to the left, top, right
            and bottom side in pixels of the model input, positive, never clipped to the frame; embeddings
            (N, E, H/8, W/8) of unit length.
        """
        trunk = self.trunk(pyramid, features, spatial_attention, cell_mask)
        return self.score(trunk), *self._describe(self.distance_branch(trunk), trunk)

    def trunk(self, pyramid, features, spatial_attention, cell_mask) -> torch.Tensor:
        """What all maps are made from, (N, D, H/8, W/8). Arguments as for `forward`."""
        count = cell_mask.sum(dim=(1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
        gain = 1 + self.attention_gain * count * spatial_attention.unsqueeze(1)  # (N, 1, H/16, W/16)
        fused = pyramid + F.interpolate(features * gain, scale_factor=2.0, mode="nearest")
        return self.stem(self.feature_norm(fused))

    def score(self, trunk: torch.Tensor) -> torch.Tensor:
        """Heatmap logits (N, C, H/8, W/8) of a trunk (N, D, H/8, W/8)."""
        return self.heatmap(self.heatmap_branch(trunk))

    def describe(self, trunk: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and embeddings of some cells alone: those of `forward` there, for a fraction of the cost.

        Args:
            trunk: (N, D, H/8, W/8).
            cells: (N, K) long, numbers of cells, row by row.

        Returns:
            Distances (N, K, 4) and embeddings (N, K, E).
        """
        patches = neighbourhoods(trunk, cells)  # (N, D, 3, 3K)
        maps = self._describe(self.distance_branch.on_patches(patches), patches[:, :, 1:2, 1::3])
        return tuple(values[:, :, 0].transpose(1, 2) for values in maps)  # from (N, ..., 1, K)

    def _describe(self, hidden, trunk):
        distances = F.softplus(self.distance(hidden)) * self.stride
        return distances, F.normalize(self.embedding(trunk), dim=1)


def neighbourhoods(maps: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """The 3x3 cells about each of some cells, side by side; zero beyond the border.

    Args:
        maps: (N, D, h, w).
        cells: (N, K) long, numbers of cells, row by row.

    Returns:
        (N, D, 3, 3K), columns 3k to 3k + 2 being those of cell k.
    """
    number, channels, height, width = maps.shape
    steps = torch.arange(-1, 2, device=cells.device)
    rows = ((cells // width)[:, None] + steps[:, None])[..., None]  # (N, 3, K, 1)
    columns = ((cells % width)[..., None] + steps)[:, None]  # (N, 1, K, 3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (N, 3, K, 3)
    first = (torch.arange(number, device=cells.device) * (height * width))[:, None, None, None]
    chosen = first + rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    table = maps.permute(0, 2, 3, 1).reshape(-1, channels)  # (Nhw, D), in its own memory order if it is channels-last
    found = table.index_select(0, chosen.flatten()) * inside.flatten()[:, None].to(maps.dtype)
    return found.reshape(number, 3, -1, channels).permute(0, 3, 1, 2)
