"""Hierarchical softmax attention: over space in every frame, then over time (arXiv 2507.22421, Eqs. 3-5).

    alpha_{t,i,j} = softmax_{ij}(w_s . F_{t,i,j})        f_t = sum_{ij} alpha_{t,i,j} F_{t,i,j}
    beta_t        = softmax_t(w_tau . f_t)               R   = sum_t beta_t f_t

The same module attends within any region: log(overlap of cell and region) is added to the spatial logits, so a box
smaller than a cell still has weight, cells outside carry none, and a box over the whole valid area is no region at all.

A model with keypoints remembers a region's pose beside its f, and adds to R what the poses of the window do; one with
region statistics remembers these as well, and adds how they go through the window.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..modeling.pose_kinetrack import PoseEncoder
from ..modeling.propagation_kinetrack import keep_last_valid
from ..modeling.statistics_kinetrack import window_statistics


def cell_overlap(boxes: torch.Tensor, height: int, width: int, stride: int) -> torch.Tensor:
    """Fraction of every grid cell that a box covers; exact, since cells and boxes are axis-aligned.

    Args:
        boxes: (..., 4) xyxy in pixels of the model input.
        height: rows of the grid.
        width: columns of the grid.
        stride: pixels a cell.

    Returns:
        (..., height, width) in [0, 1].
    """
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype) * stride
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype) * stride
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(-2)  # (..., 1) each
    across = (torch.minimum(right, columns + stride) - torch.maximum(left, columns)).clamp(min=0) / stride
    down = (torch.minimum(bottom, rows + stride) - torch.maximum(top, rows)).clamp(min=0) / stride
    return down.unsqueeze(-1) * across.unsqueeze(-2)


def masked_softmax(logits: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax over the entries where `mask` holds; all zeros (and zero gradient) where it holds nowhere."""
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return logits.softmax(dim) * mask.to(logits.dtype)


@dataclass
class AttentionMemory:
    """What the temporal attention remembers of earlier frames. All tensors, so it can be saved, moved and exported.

    With a window of W frames: `scores` (B, W) holds w_tau . f of the last W frames, -inf where there were fewer, and
    `features` (B, W, D) their f. Without a window the past is one running softmax: `scores` (B, 1) is its
    log-sum-exp and `features` (B, 1, D) its weighted mean, which is exact. In a model with keypoints or region
    statistics features have `config.region_size` channels: f, then the region's pose (`locate_keypoints`), then its
    statistics (`region_statistics`).
    """

    scores: torch.Tensor
    features: torch.Tensor

    def rows(self, chosen: torch.Tensor) -> "AttentionMemory":
        """The memories of some samples: `chosen` is (B,) bool or (N,) indices."""
        return AttentionMemory(self.scores[chosen], self.features[chosen])

    def join(self, other: "AttentionMemory") -> "AttentionMemory":
        """The samples of this one, then those of another."""
        return AttentionMemory(torch.cat([self.scores, other.scores]), torch.cat([self.features, other.features]))


class HierarchicalAttention(nn.Module):
    """Spatial and temporal softmax attention with single learned projections (Eqs. 3-5).

    Args:
        config: `KineTrackConfig`; either level can be switched off, which makes its weights uniform.
    """

    def __init__(self, config):
        super().__init__()
        self.window = config.attention_window
        self.use_spatial, self.use_temporal = config.spatial_attention, config.temporal_attention
        self.spatial_projection = nn.Linear(config.hidden_size, 1, bias=False)  # w_s
        self.temporal_projection = nn.Linear(config.hidden_size, 1, bias=False)  # w_tau
        self.size = config.hidden_size
        self.pose_encoder = PoseEncoder(config) if config.keypoints else None
        self.pose_size, self.statistics_size = 3 * len(config.keypoints), 3 * config.cell_channels

    def attend_space(
        self, features: torch.Tensor, overlap: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Eqs. 3 and 4 within R regions of every frame.

        Args:
            features: F (N, H, W, D).
            overlap: (N, R, H, W), fraction of each cell inside each region; all zero for a region that is not there.

        Returns:
            alpha (N, R, H, W), f (N, R, D) and w_tau . f (N, R). A region without overlap has alpha = f = 0 and
            score -inf, so it drops out of the temporal softmax.
        """
        cells = features.flatten(1, 2)  # (N, HW, D)
        logits = self.spatial_projection(cells).transpose(1, 2)  # (N, 1, HW)
        if not self.use_spatial:
            logits = torch.zeros_like(logits)
        weight = overlap.flatten(2)  # (N, R, HW)
        inside = weight > 0
        alpha = masked_softmax(logits + weight.clamp(min=torch.finfo(weight.dtype).tiny).log(), inside, dim=-1)
        pooled = alpha @ cells  # (N, R, D)
        score = self.temporal_projection(pooled).squeeze(-1)  # (N, R)
        if not self.use_temporal:
            score = torch.zeros_like(score)
        score = score.masked_fill(~inside.any(-1), float("-inf"))
        return alpha.unflatten(2, overlap.shape[-2:]), pooled, score

    def attend_time(
        self,
        scores: torch.Tensor,
        pooled: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        memory: AttentionMemory | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, AttentionMemory]:
        """Eq. 5 over what is remembered and the frames of this clip, seen from the last valid frame.

        Args:
            scores: w_tau . f (B, T), -inf for frames to leave out.
            pooled: f (B, T, D), or (B, T, `config.region_size`) with the region's pose and statistics.
            frame_mask: (B, T), True for valid frames, which come first.
            memory: of an earlier chunk.

        Returns:
            beta (B, M + T), M being the entries of `memory` (0 without one), R (B, D) and the new memory. Beta sums
            to one, or is zero where no frame can be attended to. With keypoints or statistics R is
            (B, `config.summary_size`): the description of the movement in the window follows, and how the statistics
            go through it (`window_statistics`).
        """
        if frame_mask is not None:
            scores = scores.masked_fill(~frame_mask, float("-inf"))
        if memory is None:
            memory = self.empty_memory(pooled)
            unseen = memory.scores.shape[1]
        else:
            unseen = 0
        all_scores = torch.cat([memory.scores, scores], dim=1)  # (B, M + T)
        all_pooled = torch.cat([memory.features, pooled], dim=1)  # (B, M + T, D)
        attended = all_scores > float("-inf")
        if self.window is None:
            beta = masked_softmax(all_scores, attended, dim=1)
            summary = (beta.unsqueeze(1) @ all_pooled).squeeze(1)  # (B, D)
            total = all_scores.logsumexp(dim=1, keepdim=True)  # (B, 1)
            return beta[:, unseen:], summary, AttentionMemory(total, summary.unsqueeze(1))
        memory = AttentionMemory(  # clones, because a view would keep the whole clip's f in memory
            keep_last_valid(all_scores, self.window, frame_mask).clone(),
            keep_last_valid(all_pooled, self.window, frame_mask).clone(),
        )
        position = torch.arange(all_scores.shape[1], device=scores.device)
        end = all_scores.shape[1] - scores.shape[1]
        end = end + (scores.shape[1] if frame_mask is None else frame_mask.sum(dim=1, keepdim=True))
        beta = masked_softmax(all_scores, attended & (position < end) & (position >= end - self.window), dim=1)
        summary = (beta.unsqueeze(1) @ all_pooled[..., : self.size]).squeeze(1)  # (B, D)
        _, poses, statistics = memory.features.split([self.size, self.pose_size, self.statistics_size], dim=-1)
        seen = memory.scores > float("-inf")
        if self.pose_encoder is not None:
            summary = torch.cat([summary, self.pose_encoder(poses, seen)], dim=-1)
        if self.statistics_size:
            summary = torch.cat([summary, window_statistics(statistics, seen)], dim=-1)
        return beta[:, unseen:], summary, memory

    def empty_memory(self, pooled: torch.Tensor) -> AttentionMemory:
        """A memory of nothing for what has the shape (B, ..., `config.region_size`)."""
        batch, size, length = pooled.shape[0], pooled.shape[-1], self.window or 1
        return AttentionMemory(pooled.new_full((batch, length), float("-inf")), pooled.new_zeros(batch, length, size))


def relative_entropy(weights: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Entropy of attention weights over log(number of valid entries): 1 is uniform, 0 is a single entry.

    Collapse to uniform is the known failure of softmax attention, so training watches this.
    Shapes: weights, valid (B, N) -> (B,).
    """
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1)
    return entropy / valid.sum(dim=-1).clamp(min=2).to(weights.dtype).log()
