"""Where people's joints are: maps on the stride-8 grid, and their places within a person's box.

Actions of people are movements of their limbs, and a model that is told where limbs are needs fewer examples of every
action (multi-task pose and action, arXiv 1802.09232). This is an addition to arXiv 2507.22421. The place of a keypoint
k within a region is its expectation over the cells x of the grid (integral pose regression, arXiv 1711.08229):

    p_k(x) ~ w(x) exp(l_k(x))          y_k = sum_x p_k(x) x          c_k = sum_x p_k(x)^2

l are the head's maps, and w the overlap of a cell with the box, or with the frame where there is no box: the pose of a
frame is that of its only person, and no pose (small c) where there are many. c, the concentration, is 1 where all of p
lies in one cell and small where the keypoint could be anywhere.
"""

import torch
from torch import nn

from ..modeling.attention_kinetrack import cell_overlap
from ..modeling.backbone_kinetrack import ChannelNorm
from ..modeling.encoder_kinetrack import SeparableConv
from ..modeling.processes_kinetrack import mean_over_processes

# A person's keypoints are looked for in the box, larger by this share of its sides: a raised hand may be beyond it.
MARGIN = 0.1
# Standard deviation of a keypoint's target, as a share of the square root of the person's area; at least in pixels.
_SPREAD, _MIN_SPREAD = 0.05, 5.0
_PLACE_WEIGHT = 2.0  # of the distance between y and the keypoint, beside the cross entropy of p
_LOGIT_RANGE = 60.0  # below the highest one of a map, so that no exponential is zero


class KeypointHead(nn.Module):
    """Keypoint maps from P: a narrow stack of separable convolutions with residual connections.

    Args:
        config: `KineTrackConfig`; `config.keypoints` names the K keypoints, `config.keypoint_channels` is the width.
    """

    def __init__(self, config):
        super().__init__()
        channels, eps = config.keypoint_channels, config.layer_norm_eps
        self.reduce = nn.Sequential(
            nn.Conv2d(config.hidden_size, channels, 1, bias=False), ChannelNorm(channels, eps), nn.ReLU()
        )
        self.blocks = nn.ModuleList(SeparableConv(channels, eps, kernel_size=5) for _ in range(2))
        self.maps = nn.Conv2d(channels, len(config.keypoints), 1)

    def forward(self, pyramid: torch.Tensor) -> torch.Tensor:
        """P (N, D, H/8, W/8) -> l (N, K, H/8, W/8)."""
        hidden = self.reduce(pyramid)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.maps(hidden)


def locate_keypoints(logits: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Places and concentrations of keypoints in R regions of every frame.

    Args:
        logits: l (N, K, h, w).
        weight: w (N, R, h, w), not negative; all zero for a region that is not there.
        stride: pixels a cell.

    Returns:
        (N, R, K, 3): x and y in pixels of the model input, and c in 0..1; all zero for a region that is not there.
    """
    height, width = logits.shape[-2:]
    precise = torch.promote_types(logits.dtype, torch.float32)
    cells, weight = logits.flatten(2).to(precise), weight.flatten(2).to(precise)  # (N, K, G), (N, R, G)
    mass = torch.exp((cells - cells.amax(-1, keepdim=True)).clamp(min=-_LOGIT_RANGE)).transpose(1, 2)  # (N, G, K)
    number = torch.arange(height * width, device=cells.device)[None, :, None]  # of a cell, row by row
    x, y = (number % width + 0.5) * stride, (number // width + 0.5) * stride  # (1, G, 1)
    tiny = torch.finfo(mass.dtype).tiny
    total = (weight @ mass).clamp(min=tiny)  # (N, R, K)
    concentration = (weight.square() @ mass.square()) / total.square().clamp(min=tiny)
    return torch.stack([(weight @ (mass * x)) / total, (weight @ (mass * y)) / total, concentration], dim=-1)


def widened(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) xyxy in which keypoints are looked for: larger by `MARGIN` of their sides on each side."""
    margin = MARGIN * (boxes[..., 2:] - boxes[..., :2])
    return torch.cat([boxes[..., :2] - margin, boxes[..., 2:] + margin], dim=-1)


def keypoint_loss(config, logits: torch.Tensor, frame_labels: list, valid: torch.Tensor) -> torch.Tensor | None:
    """Cross entropy of p against a Gaussian about the keypoint, and the distance of y from it; None without keypoints.

    Distances are relative to the square root of the person's area. Both are averaged over all known keypoints, weighed
    by their weights, and over two regions: the person's box, and the whole frame, where nobody else has keypoints.

    Args:
        config: `KineTrackConfig`.
        logits: (B, T, K, H/8, W/8).
        frame_labels: `frame_labels[b][t]` is None or a dict with `boxes` (n, 4) xyxy and perhaps `keypoints` (n, K, 3),
            both in pixels of the model input: x, y, and a weight in 0..1 that is 0 where the keypoint is not known.
        valid: (B, H/8, W/8) bool, cells that see the frame.

    Raises:
        ValueError: keypoints of another number than the configuration's.
    """
    count, (height, width) = len(config.keypoints), logits.shape[-2:]
    where, boxes, points = [], [], []
    for b, clip in enumerate(frame_labels):
        for t, frame in enumerate(clip):
            if frame is None or frame.get("keypoints") is None:
                continue
            given = frame["keypoints"]
            if given.shape[1:] != (count, 3):
                raise ValueError(
                    f"`keypoints` must be (n, {count}, 3), as many as `config.keypoints`, got {tuple(given.shape)}."
                )
            for person in (given[..., 2] > 0).any(1).nonzero().flatten().tolist():
                where.append((b, t))
                boxes.append(frame["boxes"][person])
                points.append(given[person])
    if not mean_over_processes(torch.tensor(len(where), device=logits.device)):
        return None
    if not where:
        return 0.0 * logits.float().sum()
    alone = torch.tensor([where.count(place) == 1 for place in where], device=logits.device)  # (n,)
    rows, columns = torch.tensor(where, device=logits.device).unbind(1)
    boxes = torch.stack(boxes).to(logits.device, torch.float32)  # (n, 4)
    points = torch.stack(points).to(logits.device, torch.float32)  # (n, K, 3)
    stride = config.output_stride
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).prod(-1).sqrt()[:, None]  # (n, 1)
    targets = _targets(points, size, height, width, stride)  # (n, K, G)
    maps = logits[rows, columns].float()  # (n, K, h, w)
    near = cell_overlap(widened(boxes), height, width, stride) * valid[rows]  # (n, h, w)
    total = weight = 0.0
    for overlap, counted in ((near, torch.ones_like(alone)), (valid[rows].float(), alone)):
        wanted = targets * (overlap > 0).flatten(1)[:, None]
        known = points[..., 2] * (wanted.sum(-1) > 0) * counted[:, None]  # (n, K)
        wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1e-6)
        inside = overlap.flatten(1)[:, None].clamp(min=1e-6).log()  # (n, 1, G)
        entropy = -(wanted * (maps.flatten(2) + inside).log_softmax(-1)).sum(-1)  # (n, K)
        places = locate_keypoints(maps, overlap[:, None], stride)[:, 0, :, :2]  # (n, K, 2)
        distance = (places - points[..., :2]).abs().sum(-1) / size
        total = total + ((entropy + _PLACE_WEIGHT * distance) * known).sum()
        weight = weight + known.sum()
    return total / mean_over_processes(weight).clamp(min=1e-6)


def _targets(points, size, height, width, stride):
    """Gaussians (n, K, G) about points (n, K, 3) of people whose size is (n, 1)."""
    spread = (_SPREAD * size).clamp(min=_MIN_SPREAD)[..., None]  # (n, 1, 1)
    x = (torch.arange(width, device=points.device) + 0.5) * stride
    y = (torch.arange(height, device=points.device) + 0.5) * stride
    across = torch.exp(-((x - points[..., :1]) ** 2) / (2 * spread**2))  # (n, K, w)
    down = torch.exp(-((y - points[..., 1:2]) ** 2) / (2 * spread**2))  # (n, K, h)
    return (down.unsqueeze(3) * across.unsqueeze(2)).flatten(2)
