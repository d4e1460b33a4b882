"""What a pose does over time: from the keypoints of a region in the last frames to a vector of movement.

An addition to arXiv 2507.22421. Appearance tells a kitchen from a pitch; a few hundred clips do not teach it what limbs
do. Coordinates have no look that could be learned in the action's stead, so their own small network over time is added
to the action head's logits, and tells other things than the rest of the model does.
"""

import torch
import torch.nn.functional as F
from torch import nn

_FEATURES = 7  # of a keypoint: place, change since the last frame and since three frames ago (x, y each), concentration
_STEP_SCALES = ((1, 5.0), (3, 2.0))  # frames back, and what brings such a change to about the size of a place


class _OverTime(nn.Conv1d):
    """A convolution of three frames, on (B, W, C), as one product: for so little that takes half the time."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        padded = F.pad(hidden, (0, 0, 1, 1))
        neighbours = torch.stack([padded[:, :-2], hidden, padded[:, 2:]], dim=-1)  # (B, W, C, 3)
        return F.linear(neighbours.flatten(2), self.weight.flatten(1), self.bias)


class PoseEncoder(nn.Module):
    """Three convolutions over time on normalised keypoints, then their mean and maximum.

    Places are relative to the middle of the person and to the person's size over the window, so that neither camera nor
    distance counts.

    Args:
        config: `KineTrackConfig`; `config.keypoints` are K, `config.pose_channels` the width.
    """

    def __init__(self, config):
        super().__init__()
        channels, self.count = config.pose_channels, len(config.keypoints)
        sizes = [_FEATURES * self.count, channels, channels]
        self.convolutions = nn.ModuleList(_OverTime(size, channels, 3) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=config.layer_norm_eps) for _ in sizes)
        self.dropout = nn.Dropout(config.pose_dropout)

    def forward(self, poses: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Describes the movement of every sample.

        Args:
            poses: (B, W, 3K) from `locate_keypoints`, oldest frame first.
            seen: (B, W) bool, frames in which the region was there.

        Returns:
            (B, 2C), zero where it never was.
        """
        mask = seen.to(poses.dtype).unsqueeze(-1)  # (B, W, 1)
        hidden = pose_features(poses.unflatten(-1, (self.count, 3)), mask)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = self.dropout(F.relu(norm(convolution(hidden)))) * mask
        mean = hidden.sum(1) / mask.sum(1).clamp(min=1)
        return torch.cat([mean, hidden.amax(1)], dim=-1)  # values are not negative, so masked ones are no maximum


def pose_features(poses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Normalised places, changes and concentrations.

    Args:
        poses: (B, W, K, 3).
        mask: (B, W, 1), 1 in frames in which the person was seen.

    Returns:
        (B, W, 7K), zero in frames that were not seen; a change is zero where one of its two frames was not.
    """
    places, concentration = poses[..., :2], poses[..., 2]
    frames = mask.sum(1).clamp(min=1)  # (B, 1)
    middle = places.mean(2)  # (B, W, 2)
    extent = (places.amax(2) - places.amin(2)).square().sum(-1).sqrt()  # (B, W)
    size = ((extent * mask.squeeze(-1)).sum(1, keepdim=True) / frames).clamp(min=1.0)[..., None, None]  # (B, 1, 1, 1)
    centre = ((middle * mask).sum(1, keepdim=True) / frames.unsqueeze(-1)).unsqueeze(2)  # (B, 1, 1, 2)
    relative = (places - middle.unsqueeze(2)) / size
    found = [relative.flatten(2)]
    placed = (places - centre) / size
    for back, scale in _STEP_SCALES:
        before = F.pad(placed, (0, 0, 0, 0, back, 0))[:, :-back]
        known = F.pad(mask, (0, 0, back, 0))[:, :-back]
        found.append((placed - before).flatten(2) * (known * mask) * scale)
    return torch.cat([*found, concentration], dim=-1) * mask
