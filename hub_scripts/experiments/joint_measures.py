"""What a jointly trained model can do: actions of clips, tracks of sequences by a session, and where alpha lies."""

from collections.abc import Sequence as Items

import numpy as np
import torch

from ...modeling.attention_kinetrack import cell_overlap, relative_entropy
from ...processing.session_kinetrack import tracker_settings
from ..data.annotations import box_iou
from ..detection_cache import FLOOR, SequenceDetections, detect_sequence, track_detections
from ..metrics.average_precision import average_precision, match_by_score, precision_recall
from .clip_training import spread_frames
from .experiment import hits_text
from .features import ClipFeatures
from .identity_events import read_people
from .joint_data import SequenceMaps, clip_batch
from .joint_model import TrainedStages
from .sequence_scores import score_sequences, stretches_of

_CLIPS = 16
_STRIDE = 16
STRETCH = 30  # frames that are drawn together
_EVERY = 5  # frames of a sequence between two whose alpha is looked at


@torch.inference_mode()
def measure_actions(model, stages: TrainedStages, clips: list[ClipFeatures], frames: int) -> dict:
    """Answers on labelled clips, and how alpha and beta are spread.

    Args:
        model: with an action head.
        stages: its backbone.
        clips: with maps and actors.
        frames: of each.

    Returns:
        `hits`, text with a digit a clip; `alpha` and `beta`, mean entropies relative to uniform; `inside` and `area`,
        by clip: alpha's share within the actor's box, and the box's share of the frame, None where there is no box.
    """
    model.eval()
    right, alphas, betas, inside, area = [], [], [], [], []
    for start in range(0, len(clips), _CLIPS):
        part = clips[start : start + _CLIPS]
        batch = clip_batch(part, spread_frames(frames))
        stages.give(batch.fine, batch.middle)
        output = model(batch.blank)
        right += (output.logits.argmax(1) == batch.arguments["labels"]).tolist()
        alphas += _entropies(output.spatial_attention.flatten(2)).mean(1).tolist()
        betas += _entropies(output.temporal_attention).tolist()
        for clip, alpha in zip(part, output.spatial_attention, strict=True):  # (T, h, w)
            boxes = clip.actor[spread_frames(frames)(len(clip.actor), None)]
            shares = [mass_inside(weights, box[None]) for weights, box in zip(alpha, boxes, strict=True)]
            within, covered = _mean_shares(shares)
            inside.append(within)
            area.append(covered)
    return {
        "hits": hits_text(right),
        "alpha": round(float(np.mean(alphas)), 4),
        "beta": round(float(np.mean(betas)), 4),
        "inside": inside,
        "area": area,
    }


def _entropies(weights: torch.Tensor) -> torch.Tensor:
    return relative_entropy(weights, torch.ones_like(weights, dtype=torch.bool))


def mass_inside(alpha: torch.Tensor, boxes: np.ndarray) -> tuple[float, float] | None:
    """Share of attention within any of some boxes, and share of the frame that they cover, on the grid of cells.

    Args:
        alpha: `(h, w)`, summing to one.
        boxes: `(N, 4)` xyxy in pixels of the model input; rows that are not finite do not count.

    Returns:
        Both in 0..1; None without a box.
    """
    boxes = boxes[np.isfinite(boxes).all(1)]
    if not len(boxes):
        return None
    cover = cell_overlap(torch.as_tensor(boxes, dtype=torch.float32), *alpha.shape, _STRIDE).amax(0)  # (h, w)
    return float((alpha * cover).sum()), float(cover.mean())


def measure_tracking(
    model, stages: TrainedStages, processor, dev: Items[SequenceMaps], val: Items[SequenceMaps]
) -> dict:
    """Tracks of whole sequences through a session, with the score from which an object is reported chosen on `dev`.

    Args:
        model: with a tracking head.
        stages: its backbone.
        processor: that chooses the size which the maps were made with.
        dev: sequences that the threshold is chosen on, by the best F1 of single detections.
        val: sequences that are scored.

    Returns:
        What `score_sequences` gives; `ap50` on both together; `threshold` and `dev_f1`; and `inside` and `area`, by
        stretch of `val`: alpha's share within the boxes of annotated people, and that of the frame which they cover.
    """
    found, _ = _detect(model, stages, processor, dev)
    scores, hits, wanted = judge_detections(found)
    threshold, f1 = best_threshold(scores, hits, wanted)
    found, alphas = _detect(model, stages, processor, val)
    scores, hits, wanted = judge_detections(found)
    rows = {item.sequence.folder.name: track_detections(item, tracker_settings(threshold)) for item in found}
    shares = [_shares(maps, weights) for maps, weights in zip(val, alphas, strict=True)]
    return {
        **score_sequences(rows, [item.sequence for item in found], STRETCH),
        "ap50": 100 * average_precision(scores, hits, wanted) if len(scores) else 0.0,
        "threshold": round(threshold, 4),
        "dev_f1": round(100 * f1, 2),
        "inside": [inside for part in shares for inside, _ in part],
        "area": [area for part in shares for _, area in part],
    }


def _detect(
    model, stages: TrainedStages, processor, sequences: Items[SequenceMaps]
) -> tuple[list[SequenceDetections], list[list[np.ndarray]]]:
    """Detections, and alpha of every frame."""
    model.config.trained = True  # which sessions insist on
    found, alphas = [], []
    for maps in sequences:
        stages.give(maps.fine, maps.middle)
        series: list[np.ndarray] = []
        found.append(
            detect_sequence(
                model, processor, maps.sequence, on_result=lambda result, s=series: s.append(result.spatial_attention)
            )
        )
        if stages.left:
            raise RuntimeError(f"{maps.sequence.folder.name}: {stages.left} of its frames were never looked at.")
        alphas.append(series)
    return found, alphas


def judge_detections(found: Items[SequenceDetections]) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores `(N,)` and hits `(N,)` at IoU 0.5 of all detections, and the number of annotated people."""
    scores, hits, wanted = [np.zeros(0)], [np.zeros(0, bool)], 0
    for item in found:
        people, first = read_people(item.sequence.folder), (item.sequence.part or (1, 0))[0]
        for number, frame in enumerate(item.frames, start=first):
            here = people[people[:, 0] == number][:, 2:6]
            truth = np.concatenate([here[:, :2], here[:, :2] + here[:, 2:]], axis=1).astype(np.float32)
            hits.append(match_by_score(frame.confidence, box_iou(frame.xyxy.astype(np.float32), truth), 0.5))
            scores.append(frame.confidence)
            wanted += len(truth)
    return np.concatenate(scores), np.concatenate(hits), wanted


def best_threshold(scores: np.ndarray, hits: np.ndarray, wanted: int) -> tuple[float, float]:
    """The score with the best F1, and that F1 (0 to 1); 0.5 where nothing was found."""
    if not hits.any():
        return 0.5, 0.0
    precision, recall = precision_recall(scores, hits, wanted)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    levels = np.unique(scores)[::-1]
    best = int(f1.argmax())
    return float(np.clip(levels[best], FLOOR, 0.95)), float(f1[best])


def _mean_shares(shares: list[tuple[float, float] | None]) -> tuple[float | None, float | None]:
    """Means of both over the frames that have boxes, None where none has."""
    known = [share for share in shares if share is not None]
    return tuple(round(float(value), 4) for value in np.mean(known, axis=0)) if known else (None, None)


def _shares(maps: SequenceMaps, alphas: list[np.ndarray]) -> list[tuple[float | None, float | None]]:
    """By stretch, means over some of its frames with people."""
    people, found = read_people(maps.sequence.folder), []
    for first, last in stretches_of(maps.sequence, STRETCH):
        shares = []
        for number in range(first, last + 1, _EVERY):
            here = people[people[:, 0] == number][:, 2:6]
            boxes = np.concatenate([here[:, :2], here[:, :2] + here[:, 2:]], axis=1) * maps.scale
            shares.append(mass_inside(torch.from_numpy(alphas[number - 1]), boxes))
        found.append(_mean_shares(shares))
    return found
