"""Model outputs in, meaning out: actions, boxes in pixels of the original frames, and identities."""

from collections.abc import Callable, Mapping

import torch

from ..processing.detection_kinetrack import decode_detections
from ..processing.tracking_kinetrack import Detections


def classify_videos(logits: torch.Tensor, top_k: int, id2label: Mapping[int, str] | None, temperature: float):
    """The `top_k` most probable actions of each video.

    Args:
        logits: (B, num_labels).
        top_k: Most entries; fewer when there are fewer labels.
        id2label: Names; None gives the class numbers.
        temperature: Divides the logits before the softmax.

    Returns:
        B lists of `{"score": float, "label": str | int}`, best first.
    """
    if logits.ndim != 2:
        raise ValueError(f"Expected `logits` (B, num_labels), got {tuple(logits.shape)}.")
    if top_k < 1 or not temperature > 0:
        raise ValueError(f"`top_k` must be at least 1 and `temperature` positive, got {top_k} and {temperature}.")
    probabilities = (logits.detach().float() / temperature).softmax(-1)  # (B, num_labels)
    scores, labels = probabilities.topk(min(top_k, logits.shape[-1]), dim=-1)
    return [
        [
            {"score": score, "label": label if id2label is None else id2label[label]}
            for score, label in zip(row_scores, row_labels, strict=True)
        ]
        for row_scores, row_labels in zip(scores.tolist(), labels.tolist(), strict=True)
    ]


def detect_objects(
    outputs,
    scales: list[float] | None,
    content_sizes: list[tuple[int, int]] | None,
    threshold: float,
    frame_mask: torch.Tensor | None,
    **settings,
) -> list[list[dict[str, torch.Tensor]]]:
    """Boxes of every valid frame of every video.

    Args:
        outputs: With `heatmap_logits` (B, T, C, h, w), `distances` (B, T, 4, h, w), perhaps `embeddings`.
        scales: Per video, pixels of the model input per pixel of the original; None leaves the input's pixels.
        content_sizes: Per video, (h, w) pixels of the canvas that hold picture; None: all.
        threshold: Lowest score kept.
        frame_mask: (B, T), False for frames that are padding; they give no entry.
        settings: For `decode_detections`; `stride` among them.

    Returns:
        B lists of one dict a frame: `boxes` (n, 4) xyxy, `scores`, `labels`, `embeddings`.
    """
    heatmap = getattr(outputs, "heatmap_logits", None)
    if heatmap is None:
        raise ValueError("The outputs hold no `heatmap_logits`: the model has no tracking head.")
    batch, frames = heatmap.shape[:2]
    embeddings = getattr(outputs, "embeddings", None)
    stride = settings.setdefault("stride", 8)
    for name, values in (("target_sizes", scales), ("frame_mask", frame_mask)):
        if values is not None and len(values) != batch:
            raise ValueError(f"`{name}` has {len(values)} entries for {batch} videos; give one per video.")
    cell_mask = None
    if content_sizes is not None:
        cell_mask = torch.zeros(batch, frames, *heatmap.shape[-2:], dtype=torch.bool, device=heatmap.device)
        for index, (height, width) in enumerate(content_sizes):
            cell_mask[index, :, : -(-height // stride), : -(-width // stride)] = True
        cell_mask = cell_mask.flatten(0, 1)  # (B·T, h, w)
    decoded = decode_detections(
        heatmap.flatten(0, 1),
        outputs.distances.flatten(0, 1),
        None if embeddings is None else embeddings.flatten(0, 1),
        cell_mask,
        threshold=threshold,
        **settings,
    )
    videos = []
    for index in range(batch):
        video = decoded[index * frames : (index + 1) * frames]
        if frame_mask is not None:
            valid = frame_mask[index].tolist()
            video = [frame for frame, is_valid in zip(video, valid, strict=True) if is_valid]
        if scales is not None:
            for frame in video:
                frame["boxes"] = frame["boxes"] / scales[index]
        videos.append(video)
    return videos


def track_objects(videos, times: list[list[float]] | None, make_tracker: Callable) -> list[list[dict]]:
    """Gives the boxes of each video identities, one new tracker a video.

    Args:
        videos: What `detect_objects` returns.
        times: Per video, seconds of its frames; None: equal steps.
        make_tracker: Called once a video; returns a `KineTracker`.

    Returns:
        B lists of one dict a frame: `boxes` (m, 4) xyxy, `scores`, `labels` and `track_ids` (m,) long, from 1.
    """
    tracked = []
    for index, video in enumerate(videos):
        if times is not None and len(times[index]) != len(video):
            raise ValueError(f"Video {index} has {len(video)} frames but {len(times[index])} `times`; give one each.")
        tracker, frames = make_tracker(), []
        for number, frame in enumerate(video):
            found = Detections(
                xyxy=frame["boxes"].cpu().numpy(),
                confidence=frame["scores"].cpu().numpy(),
                class_id=frame["labels"].cpu().numpy(),
                data={} if frame["embeddings"] is None else {"embedding": frame["embeddings"].cpu().numpy()},
            )
            tracks = tracker.update(found, time=None if times is None else float(times[index][number]))
            frames.append(
                {
                    "boxes": torch.as_tensor(tracks.xyxy, dtype=torch.float32).reshape(-1, 4),
                    "scores": torch.as_tensor(tracks.confidence, dtype=torch.float32),
                    "labels": torch.as_tensor(tracks.class_id, dtype=torch.long),
                    "track_ids": torch.as_tensor(tracks.track_id, dtype=torch.long),
                }
            )
        tracked.append(frames)
    return tracked
