"""Losses of both tasks. A missing label switches its term off; labels are never faked.

Sources: penalty-reduced focal loss, CornerNet / CenterNet (arXiv 1808.01244, 1904.07850) with the elliptical Gaussians
of TTFNet (arXiv 1909.00700); GIoU (arXiv 1902.09630); supervised contrastive loss (arXiv 2004.11362).

In a training with several processes every loss is that of all their batches together: its sum over this process's
labels, divided by the mean number of labels a process (see `processes_kinetrack`). A term is then switched off only
where no process has labels for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.ops import generalized_box_iou_loss

from ..modeling.processes_kinetrack import gather_rows, mean_over_processes, num_processes

# Half of a box's side, times this, is three standard deviations of its heatmap Gaussian (TTFNet's alpha).
_GAUSSIAN_EXTENT = 0.54


@dataclass
class HeatmapTargets:
    """What the heatmaps of one frame are taught on the stride-8 grid, G = H/8 * W/8 cells flattened row by row.

    heatmap (C, G) in [0, 1], exactly 1 at centres; positive_weight (C, G), the weight of a centre and 0 elsewhere;
    negative_weight (C, G), 0 inside ignored areas, padding and for unlabelled frames.
    """

    heatmap: torch.Tensor
    positive_weight: torch.Tensor
    negative_weight: torch.Tensor


@dataclass
class DenseTargets(HeatmapTargets):
    """All targets of one frame for the tracking head.

    box_index (G,), the box whose distances a cell learns or -1; box_weight (G,), summing to a box's weight over its
    cells; centers (n,), the cell of every box that is neither ignored nor outside the frame; kept (n,), its row in the
    annotation.
    """

    box_index: torch.Tensor
    box_weight: torch.Tensor
    centers: torch.Tensor
    kept: torch.Tensor


def dense_targets(
    frame: dict, num_classes: int, height: int, width: int, stride: int, center_radius: float, valid: torch.Tensor
) -> DenseTargets:
    """Draws one annotated frame on the grid.

    Args:
        frame: `boxes` (n, 4) xyxy in pixels of the model input, `class_labels` (n,), optional `ignore` (n,) bool and
            `weight` (n,). Boxes may reach beyond the frame; those whose centre is outside the valid area are ignored.
        num_classes: C.
        height: rows of the grid.
        width: columns of the grid.
        stride: pixels a cell.
        center_radius: see `KineTrackConfig`.
        valid: (H/8, W/8) bool, cells that see the frame.

    Raises:
        ValueError: a class label outside the configuration's object classes.
    """
    device = valid.device
    boxes = frame["boxes"].to(device=device, dtype=torch.float32)
    labels = frame["class_labels"].to(device)
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(
            f"`class_labels` must be between 0 and {num_classes - 1} (`object_classes` in the configuration), "
            f"got {labels.unique().tolist()}."
        )
    ignore = frame.get("ignore")
    ignore = torch.zeros_like(labels, dtype=torch.bool) if ignore is None else ignore.to(device)
    weight = frame.get("weight")
    weight = torch.ones(len(labels), device=device) if weight is None else weight.to(device)

    x = (torch.arange(width, device=device) + 0.5) * stride  # (W,)
    y = (torch.arange(height, device=device) + 0.5) * stride  # (H,)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2  # (n, 2)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)  # (n, 2)
    column, row = (center / stride).floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside &= valid[row.clamp(0, height - 1), column.clamp(0, width - 1)]

    negative_weight = valid.to(torch.float32).flatten().repeat(num_classes, 1)  # (C, G)
    hidden = ignore | ~inside
    if hidden.any():
        left, top, right, bottom = boxes[hidden].unsqueeze(-1).unbind(1)  # (m, 1)
        covered = ((y >= top) & (y <= bottom)).unsqueeze(2) & ((x >= left) & (x <= right)).unsqueeze(1)  # (m, H, W)
        negative_weight[:, covered.any(0).flatten()] = 0

    kept = (~hidden).nonzero().squeeze(1)
    centers = row[kept] * width + column[kept]  # (n,)
    heatmap = torch.zeros(num_classes, height * width, device=device)
    positive_weight = torch.zeros_like(heatmap)
    box_index = torch.full((height * width,), -1, dtype=torch.long, device=device)
    box_weight = torch.zeros(height * width, device=device)
    if len(kept):
        boxes, size, labels, weight = boxes[kept], size[kept], labels[kept], weight[kept]
        offset_x = x - (column[kept, None] + 0.5) * stride  # (n, W)
        offset_y = y - (row[kept, None] + 0.5) * stride  # (n, H)
        sigma = (size * _GAUSSIAN_EXTENT / 6).clamp(min=stride / 3)  # (n, 2); at least a third of a cell
        gaussian_x = torch.exp(-(offset_x**2) / (2 * sigma[:, :1] ** 2))
        gaussian_y = torch.exp(-(offset_y**2) / (2 * sigma[:, 1:] ** 2))
        gaussian = (gaussian_y.unsqueeze(2) * gaussian_x.unsqueeze(1)).flatten(1)  # (n, G)
        heatmap.scatter_reduce_(0, labels[:, None].expand_as(gaussian), gaussian, "amax")
        positive_weight.view(-1).scatter_reduce_(0, labels * height * width + centers, weight, "amax")

        # Cells near a centre learn that box's distances; where boxes compete, the smallest is in front.
        near_x = offset_x.abs() <= (size[:, :1] * center_radius).clamp(min=stride / 2)
        near_y = offset_y.abs() <= (size[:, 1:] * center_radius).clamp(min=stride / 2)
        near = (near_y.unsqueeze(2) & near_x.unsqueeze(1)).flatten(1) & valid.flatten()  # (n, G)
        area = size.prod(-1)
        order = area.argsort(descending=True)
        rank = torch.where(near[order], torch.arange(len(kept), device=device)[:, None], -1).amax(0)  # (G,)
        box_index = torch.where(rank >= 0, order[rank.clamp(min=0)], -1)
        box_index[centers[order]] = order
        assigned = box_index[box_index >= 0]
        cells = torch.bincount(assigned, minlength=len(kept))
        box_weight[box_index >= 0] = (weight / cells.clamp(min=1))[assigned]
    return DenseTargets(heatmap, positive_weight, negative_weight, box_index, box_weight, centers, kept)


def focal_loss(logits: torch.Tensor, targets: Sequence[HeatmapTargets], alpha: float, beta: float) -> torch.Tensor:
    """Penalty-reduced focal loss over all labelled frames, divided by the weight of all centres.

    Shapes: logits (N, C, H, W), one target a frame -> scalar.
    """
    logits = logits.float().flatten(2)  # (N, C, G)
    heatmap, positive, negative = (
        torch.stack([getattr(target, name) for target in targets]) if targets else torch.zeros_like(logits)
        for name in ("heatmap", "positive_weight", "negative_weight")
    )
    negative = negative * (positive == 0)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive_loss = -positive * log_q.exp() ** alpha * log_p
    negative_loss = -negative * (1 - heatmap) ** beta * log_p.exp() ** alpha * log_q
    count = mean_over_processes(positive.sum()).clamp(min=1 / num_processes())
    return (positive_loss.sum() + negative_loss.sum()) / count


def distance_loss(
    distances: torch.Tensor, targets: list[DenseTargets], frames: list[dict], stride: int
) -> torch.Tensor | None:
    """GIoU loss of the cells near centres; every box counts by its weight however many cells it has.

    Shapes: distances (N, 4, H, W) in pixels of the model input -> scalar, or None where there is no box.
    """
    width, nothing = distances.shape[-1], torch.zeros(0, device=distances.device)
    cells = [(t.box_index >= 0).nonzero().squeeze(1) for t in targets]
    rows = [torch.full_like(c, i) for i, c in enumerate(cells)]
    wanted = [
        frame["boxes"].to(device=distances.device, dtype=torch.float32)[t.kept][t.box_index[c]]
        for frame, t, c in zip(frames, targets, cells, strict=True)
    ]
    weight = torch.cat([nothing, *(t.box_weight[c] for t, c in zip(targets, cells, strict=True))])  # (M,)
    count = mean_over_processes(weight.sum())
    if not count:
        return None
    row, cell = (torch.cat([nothing.long(), *parts]) for parts in (rows, cells))
    # One gather for all frames: a slice a frame would have its gradient spread over the whole map, every time.
    left, top, right, bottom = distances.flatten(2)[row, :, cell].float().unbind(-1)  # (M,) each
    x = (cell % width + 0.5) * stride
    y = (cell // width + 0.5) * stride
    predicted = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)  # (M, 4)
    losses = generalized_box_iou_loss(predicted, torch.cat([nothing.view(0, 4), *wanted]))
    return (losses * weight).sum() / count.clamp(min=1 / num_processes())


def identity_loss(embeddings: torch.Tensor, keys: torch.Tensor, frames: torch.Tensor, temperature: float):
    """Supervised contrastive loss in float32. Anchors without a positive in another frame are left out.

    The embeddings of all training processes are compared with each other.

    Args:
        embeddings: (M, E) of unit length, at object centres.
        keys: (M,) one number a (sequence, identity).
        frames: (M,) one number a (sample, frame); a positive is the same key in another frame.
        temperature: divides the similarities.

    Returns:
        Scalar, or None where no anchor has a positive.
    """
    everyone, begin = gather_rows(embeddings.float())  # (A, E)
    moments, _ = gather_rows(torch.stack([keys.long(), frames.long() + (begin << 32)], dim=1))  # (A, 2)
    own = slice(begin, begin + len(keys))
    same_key, same_frame = (moments[own, None] == moments[None]).unbind(-1)  # (M, A) each
    positive = same_key & ~same_frame
    anchors = positive.any(1)
    count = mean_over_processes(anchors.sum())
    if not count:
        return None
    similarity = everyone[own] @ everyone.T / temperature  # (M, A)
    itself = (
        torch.arange(len(everyone), device=keys.device) == begin + torch.arange(len(keys), device=keys.device)[:, None]
    )
    log_probability = similarity.masked_fill(itself, float("-inf")).log_softmax(dim=1)
    positives = log_probability.masked_fill(~positive, 0).sum(1)[anchors] / positive.sum(1)[anchors]
    return -positives.sum() / count


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor | None:
    """Cross-entropy with label smoothing; -100 marks a missing label, None is returned when all are missing."""
    count = mean_over_processes((labels != -100).sum())
    if not count:
        return None
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum") / count


def tracking_losses(config, heatmap_logits, distances, embeddings, frame_labels, valid) -> dict[str, torch.Tensor]:
    """The terms `heatmap`, `box` and `identity` of a batch of clips.

    Args:
        config: `KineTrackConfig`.
        heatmap_logits: (B, T, C, H/8, W/8).
        distances: (B, T, 4, H/8, W/8).
        embeddings: (B, T, E, H/8, W/8).
        frame_labels: `frame_labels[b][t]`, a dict as for `dense_targets` with optional `track_ids` (n,), -1 being
            unknown and others unique in the batch per (sequence, identity); or None for a frame without annotation.
        valid: (B, H/8, W/8) bool.

    Returns:
        The terms that have labels.

    Raises:
        ValueError: not one entry for every frame of the batch, or as `dense_targets`.
    """
    if [len(clip) for clip in frame_labels] != [heatmap_logits.shape[1]] * heatmap_logits.shape[0]:
        raise ValueError(
            f"`frame_labels` must be {heatmap_logits.shape[0]} lists of {heatmap_logits.shape[1]} frames each, got "
            f"lists of {[len(clip) for clip in frame_labels]}. Write None for a frame without annotation."
        )
    where = [(b, t) for b, clip in enumerate(frame_labels) for t, frame in enumerate(clip) if frame is not None]
    device = heatmap_logits.device
    if not mean_over_processes(torch.tensor(len(where), device=device)):
        return {}
    height, width = heatmap_logits.shape[-2:]
    grid = (len(config.object_classes), height, width, config.output_stride, config.center_radius)
    frames = [frame_labels[b][t] for b, t in where]
    targets = [dense_targets(frame, *grid, valid[b]) for frame, (b, _) in zip(frames, where, strict=True)]
    rows, columns = torch.tensor(where, device=device, dtype=torch.long).reshape(-1, 2).unbind(1)
    terms = {
        "heatmap": focal_loss(heatmap_logits[rows, columns], targets, config.focal_alpha, config.focal_beta),
        "box": distance_loss(distances[rows, columns], targets, frames, config.output_stride),
    }

    nothing = torch.zeros(0, dtype=torch.long, device=device)
    places, keys = [torch.stack([nothing, nothing])], [nothing]
    for number, (frame, target) in enumerate(zip(frames, targets, strict=True)):
        if frame.get("track_ids") is None:
            continue
        ids = frame["track_ids"].to(device)[target.kept]
        center = target.centers[ids >= 0]
        places.append(torch.stack([torch.full_like(center, number), center]))  # (2, n)
        keys.append(ids[ids >= 0])
    moment, cell = torch.cat(places, dim=1)  # (M,) each
    vectors = embeddings.flatten(3)[rows[moment], columns[moment], :, cell]  # (M, E)
    terms["identity"] = identity_loss(vectors, torch.cat(keys), moment, config.contrastive_temperature)
    return {name: term for name, term in terms.items() if term is not None}


def weighted_sum(terms: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor | None:
    """Sum of the active terms by the configuration's `loss_weights`; `group_<name>` terms share the weight `group`."""
    if not terms:
        return None
    return sum(weights[name.split("_")[0]] * term for name, term in terms.items())
