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
    peaks = (logits == F.max_pool2d(logits, 3, stride=1, padding=1)) & (logits >= floor) & logits.isfinite()
    image, label, row, column = peaks.nonzero(as_tuple=True)  # each (n,)
    scores = logits[image, label, row, column].sigmoid()
    center_x, center_y = (column + 0.5) * stride, (row + 0.5) * stride
    left, top, right, bottom = distances.detach()[image, :, row, column].float().unbind(-1)  # each (n,)
    boxes = torch.stack([center_x - left, center_y - top, center_x + right, center_y + bottom], -1)  # (n, 4)

    detections = []
    for index in range(logits.shape[0]):
        chosen = (image == index).nonzero().squeeze(1) if logits.shape[0] > 1 else torch.arange(len(image)).to(image)
        # Only the best are worth comparing with each other: NMS is quadratic in the number of boxes.
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)[: 4 * max_detections]]
        kept = batched_nms(boxes[chosen], scores[chosen], label[chosen], nms_threshold)[:max_detections]
        chosen = chosen[kept]
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
