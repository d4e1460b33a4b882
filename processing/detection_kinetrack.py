"""Detection maps in, boxes out: peaks of the class heatmap, their distances and their embeddings."""

import math

import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms


def decode_detections(
    heatmap_logits: torch.Tensor,
    distances: torch.Tensor,
    embeddings: torch.Tensor | None = None,
    cell_mask: torch.Tensor | None = None,
    stride: int = 8,
    threshold: float = 0.3,
    max_detections: int = 300,
    nms_threshold: float = 0.65,
) -> list[dict[str, torch.Tensor]]:
    """Turns the maps of the tracking head into boxes.

    Objects as points (CenterNet, arXiv 1904.07850, section 4): a cell is an object when its score is the largest of
    its 3x3 neighbourhood; its box comes from four distances measured at the cell's centre (FCOS, arXiv 1904.01355).
    Only the few peaks are touched after the pooling, so the cost does not grow with the number of channels.

    Args:
        heatmap_logits: (N, C, h, w) class scores before the sigmoid.
        distances: (N, 4, h, w) left, top, right, bottom from the cell's centre, pixels of the model input.
        embeddings: (N, E, h, w) identity embeddings, or None.
        cell_mask: (N, h, w) bool, False for cells of padding; they neither fire nor suppress their neighbours.
        stride: Pixels of the model input a cell covers.
        threshold: Lowest score kept, a probability.
        max_detections: Most boxes kept in an image.
        nms_threshold: Two boxes of one class that overlap by more than this IoU become one, the better one.

    Returns:
        A list of N dicts sorted by falling score: `boxes` (n, 4) xyxy in pixels of the model input (amodal: they may
        reach beyond it), `scores` (n,), `labels` (n,) long, `embeddings` (n, E) or None.

    Raises:
        ValueError: maps whose sizes do not belong together, or a threshold that is no probability.
    """
    _check_maps(heatmap_logits, distances, embeddings, cell_mask, threshold)
    logits = heatmap_logits.detach().float()  # (N, C, h, w)
    if cell_mask is not None:
        logits = logits.masked_fill(~cell_mask[:, None], -math.inf)
    # Comparing logits with the logit of the threshold spares a sigmoid of the whole map.
    floor = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else (-math.inf if threshold <= 0 else math.inf)
    peaks = _highest_about(logits) & (logits >= floor) & logits.isfinite()
    image, label, row, column = peaks.nonzero(as_tuple=True)  # each (n,)
    scores = logits[image, label, row, column].sigmoid()
    boxes = boxes_at(row, column, distances.detach()[image, :, row, column].float(), stride)  # (n, 4)

    detections = []
    for index in range(logits.shape[0]):
        chosen = (image == index).nonzero().squeeze(1) if logits.shape[0] > 1 else torch.arange(len(image)).to(image)
        chosen = chosen[best_of(boxes[chosen], scores[chosen], label[chosen], max_detections, nms_threshold)]
        detections.append(
            {
                "boxes": boxes[chosen],
                "scores": scores[chosen],
                "labels": label[chosen],
                "embeddings": None
                if embeddings is None
                else embeddings.detach()[index, :, row[chosen], column[chosen]].T.float(),
            }
        )
    return detections


def select_detections(
    peaks: dict[str, torch.Tensor], threshold: float = 0.3, nms_threshold: float = 0.65
) -> dict[str, torch.Tensor]:
    """What `decode_detections` makes of an image, from its peaks.

    Args:
        peaks: of one image, as an exported step gives them: `boxes` (K, 4), `scores` (K,), `labels` (K,), `embeddings`
            (K, E).
        threshold: Lowest score kept, a probability.
        nms_threshold: Two boxes of one class that overlap by more than this IoU become one, the better one.
    """
    chosen = (peaks["scores"] >= threshold).nonzero().squeeze(1)
    boxes, scores, labels = (peaks[name][chosen] for name in ("boxes", "scores", "labels"))
    kept = best_of(boxes, scores, labels, len(chosen), nms_threshold)
    found = {"boxes": boxes, "scores": scores, "labels": labels.long(), "embeddings": peaks["embeddings"][chosen]}
    return {name: values[kept] for name, values in found.items()}


def best_of(boxes, scores, labels, max_detections: int, nms_threshold: float) -> torch.Tensor:
    """Which of (n, 4) boxes remain, best first: at most so many, and of those that overlap in a class the best."""
    # Only the best are worth comparing with each other: NMS is quadratic in the number of boxes.
    best = scores.argsort(descending=True, stable=True)[: 4 * max_detections]
    return best[batched_nms(boxes[best], scores[best], labels[best], nms_threshold)[:max_detections]]


def boxes_at(row: torch.Tensor, column: torch.Tensor, distances: torch.Tensor, stride: int) -> torch.Tensor:
    """Boxes (..., 4) xyxy from cells (...) and what the tracking head says there, (..., 4), in pixels."""
    center_x, center_y = (column + 0.5) * stride, (row + 0.5) * stride
    left, top, right, bottom = distances.unbind(-1)
    return torch.stack([center_x - left, center_y - top, center_x + right, center_y + bottom], -1)


def find_peaks(
    heatmap_logits: torch.Tensor, cell_mask: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best peaks of every image, by operations whose sizes do not depend on what is found.

    Args:
        heatmap_logits: (N, C, h, w).
        cell_mask: (N, h, w) bool, False for cells of padding.
        count: K.

    Returns:
        Scores (N, K), probabilities; labels (N, K) and numbers of cells (N, K), row by row, both long. In the order of
        labels and cells, so that it does not hang on the last digits of scores; where there are fewer peaks than K,
        the rest is zero.
    """
    lowest = torch.finfo(heatmap_logits.dtype).min
    logits = heatmap_logits.masked_fill(~cell_mask[:, None], lowest)
    peaks = _highest_about(logits) & (logits > lowest)
    values = logits.masked_fill(~peaks, lowest).flatten(1)  # (N, Chw)
    best, places = F.pad(values, (0, count), value=lowest).topk(count, dim=1)  # each (N, K)
    found, cells = best > lowest, logits.shape[-2] * logits.shape[-1]
    places, order = torch.where(found, places, cells * logits.shape[1]).sort(dim=1)
    best, found = best.gather(1, order), places < cells * logits.shape[1]
    places = places * found
    return best.sigmoid() * found, places // cells, places % cells


def _highest_about(maps):
    """(N, C, h, w) bool, cells that no cell of their 3x3 neighbourhood exceeds."""
    return maps == F.max_pool2d(maps, 3, stride=1, padding=1)


def objects_of(
    heatmap_logits: torch.Tensor,
    distances: torch.Tensor,
    embeddings: torch.Tensor,
    cell_mask: torch.Tensor,
    stride: int,
    count: int,
) -> dict[str, torch.Tensor]:
    """The peaks of a model's maps as an exported step gives them: what `select_detections` takes, of every image.

    Args:
        heatmap_logits: (N, C, h, w).
        distances: (N, 4, h, w).
        embeddings: (N, E, h, w).
        cell_mask: (N, h, w) bool, False for cells of padding.
        stride: Pixels of the model input a cell covers.
        count: K.
    """
    scores, labels, cells = find_peaks(heatmap_logits, cell_mask, count)
    here = [maps.flatten(2).gather(2, cells[:, None].expand(-1, maps.shape[1], -1)) for maps in (distances, embeddings)]
    return describe_peaks(scores, labels, cells, *(maps.transpose(1, 2) for maps in here), distances.shape[-1], stride)


def describe_peaks(scores, labels, cells, distances, embeddings, width: int, stride: int) -> dict[str, torch.Tensor]:
    """Peaks of `find_peaks` with (N, K, 4) distances and (N, K, E) embeddings there, of a grid of so many columns."""
    found = (scores > 0).to(scores.dtype).unsqueeze(-1)  # (N, K, 1)
    boxes = boxes_at(cells // width, cells % width, distances, stride)
    return {
        "boxes": boxes * found,
        "scores": scores,
        "labels": labels.to(scores.dtype),
        "embeddings": embeddings * found,
    }


def _check_maps(heatmap_logits, distances, embeddings, cell_mask, threshold):
    if heatmap_logits.ndim != 4 or distances.ndim != 4 or distances.shape[1] != 4:
        raise ValueError(
            "Expected `heatmap_logits` (N, C, h, w) and `distances` (N, 4, h, w), got "
            f"{tuple(heatmap_logits.shape)} and {tuple(distances.shape)}. Flatten batch and time first."
        )
    number, _, height, width = heatmap_logits.shape
    others = {"distances": distances, "embeddings": embeddings, "cell_mask": cell_mask}
    for name, values in others.items():
        if values is not None and (values.shape[0] != number or tuple(values.shape[-2:]) != (height, width)):
            raise ValueError(
                f"`{name}` {tuple(values.shape)} does not belong to `heatmap_logits` {tuple(heatmap_logits.shape)}: "
                "number and grid must be equal."
            )
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` is a probability between 0 and 1, got {threshold}.")
