"""Where people's joints are: one heatmap a keypoint on the stride-8 grid, and the loss that teaches it.

Actions of people are movements of their limbs, and a model that is told where limbs are needs fewer examples of every
action (multi-task pose and action, arXiv 1802.09232). The maps are an addition to arXiv 2507.22421: the motion encoder
reads them beside P. They learn from keypoints alone: no gradient of an action reaches them, so they go on meaning
joints.
"""

import math

import torch
from torch import nn

from ..modeling.encoder_kinetrack import SeparableConv
from ..modeling.loss_kinetrack import HeatmapTargets, focal_loss
from ..modeling.processes_kinetrack import mean_over_processes

# Standard deviation of a keypoint's Gaussian, as a share of the square root of the person's box.
_SPREAD = 0.04
# A person's maps are learned within the box, larger by this share of its sides: elsewhere may be others, unlabelled.
_MARGIN = 0.1


class KeypointHead(nn.Module):
    """Keypoint heatmaps from P.

    Args:
        config: `KineTrackConfig`; `config.keypoints` names the K keypoints.
    """

    def __init__(self, config):
        super().__init__()
        self.stem = SeparableConv(config.hidden_size, config.layer_norm_eps)
        self.heatmap = nn.Conv2d(config.hidden_size, len(config.keypoints), 1)

    def forward(self, pyramid: torch.Tensor) -> torch.Tensor:
        """P (N, D, H/8, W/8) -> logits (N, K, H/8, W/8)."""
        return self.heatmap(self.stem(pyramid))


def keypoint_targets(
    frame: dict, num_keypoints: int, height: int, width: int, stride: int, valid: torch.Tensor
) -> HeatmapTargets:
    """Draws the keypoints of one annotated frame on the grid.

    Args:
        frame: `boxes` (n, 4) xyxy and `keypoints` (n, K, 3): x, y in pixels of the model input, and a weight in [0, 1]
            that is 0 where the keypoint is not known. A box without any known keypoint teaches nothing.
        num_keypoints: K.
        height: rows of the grid.
        width: columns of the grid.
        stride: pixels a cell.
        valid: (H/8, W/8) bool, cells that see the frame.

    Raises:
        ValueError: keypoints of another number than the configuration's.
    """
    device = valid.device
    points = frame["keypoints"].to(device=device, dtype=torch.float32)  # (n, K, 3)
    if points.shape[1:] != (num_keypoints, 3):
        raise ValueError(
            f"`keypoints` must be (n, {num_keypoints}, 3), as many as `config.keypoints`, got {tuple(points.shape)}."
        )
    boxes = frame["boxes"].to(device=device, dtype=torch.float32)
    labelled = (points[..., 2] > 0).any(1)
    points, boxes = points[labelled], boxes[labelled]
    heatmap = torch.zeros(num_keypoints, height * width, device=device)
    positive, negative = torch.zeros_like(heatmap), torch.zeros_like(heatmap)
    if not len(points):
        return HeatmapTargets(heatmap, positive, negative)
    x = (torch.arange(width, device=device) + 0.5) * stride  # (W,)
    y = (torch.arange(height, device=device) + 0.5) * stride  # (H,)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)  # (n, 2)
    sigma = (_SPREAD * size.prod(-1).sqrt()).clamp(min=0.6 * stride)[:, None, None]  # (n, 1, 1)
    known = points[..., 2] > 0  # (n, K)
    gaussian_x = torch.exp(-((x - points[..., :1]) ** 2) / (2 * sigma**2))  # (n, K, W)
    gaussian_y = torch.exp(-((y - points[..., 1:2]) ** 2) / (2 * sigma**2))  # (n, K, H)
    gaussian = (gaussian_y.unsqueeze(3) * gaussian_x.unsqueeze(2)).flatten(2) * known[..., None]  # (n, K, G)
    heatmap = gaussian.amax(0)

    low, high = boxes[:, :2] - _MARGIN * size, boxes[:, 2:] + _MARGIN * size
    across = (x >= low[:, :1]) & (x <= high[:, :1])  # (n, W)
    down = (y >= low[:, 1:]) & (y <= high[:, 1:])  # (n, H)
    inside = (down.unsqueeze(2) & across.unsqueeze(1)).flatten(1) & valid.flatten()  # (n, G)
    negative = (inside.unsqueeze(1) & known.unsqueeze(2)).any(0).float()  # (K, G)

    column, row = (points[..., :2] / stride).floor().long().unbind(-1)  # (n, K)
    seen = known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    person, keypoint = seen.nonzero().unbind(1)
    cell = row[person, keypoint] * width + column[person, keypoint]
    heatmap[keypoint, cell] = 1.0
    positive[keypoint, cell] = points[person, keypoint, 2]
    return HeatmapTargets(heatmap, positive, negative)


def keypoint_loss(config, logits: torch.Tensor, frame_labels: list, valid: torch.Tensor) -> torch.Tensor | None:
    """Penalty-reduced focal loss of the frames that have keypoints, None where no frame has.

    Args:
        config: `KineTrackConfig`.
        logits: (B, T, K, H/8, W/8).
        frame_labels: `frame_labels[b][t]`, a dict as for `keypoint_targets`, without `keypoints` where there are none,
            or None.
        valid: (B, H/8, W/8) bool.
    """
    where = [
        (b, t)
        for b, clip in enumerate(frame_labels)
        for t, frame in enumerate(clip)
        if frame is not None and frame.get("keypoints") is not None and bool((frame["keypoints"][..., 2] > 0).any())
    ]
    if not mean_over_processes(torch.tensor(len(where), device=logits.device)):
        return None
    grid = (len(config.keypoints), *logits.shape[-2:], config.output_stride)
    targets = [keypoint_targets(frame_labels[b][t], *grid, valid[b]) for b, t in where]
    rows, columns = torch.tensor(where, device=logits.device, dtype=torch.long).reshape(-1, 2).unbind(1)
    return focal_loss(logits[rows, columns], targets, config.focal_alpha, config.focal_beta)


def prior_bias(share: float = 0.01) -> float:
    """The logit of a prior probability, for the bias of a new heatmap (RetinaNet, arXiv 1708.02002)."""
    return math.log(share / (1 - share))
