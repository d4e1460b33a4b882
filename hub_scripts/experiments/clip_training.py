"""Training a small classifier on cached features of clips, with the epoch chosen on the dev list."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..train_optimizer import warmup_cosine
from .experiment import Inputs
from .features import JHMDB, ClipFeatures, FrozenEncoder, LabelledSet, read_clips

# Which frames of a clip of some length an example has; the generator is None when the model is tested.
FrameChoice = Callable[[int, np.random.Generator | None], np.ndarray]


@dataclass(frozen=True)
class TrainingSettings:
    """What all cells of an experiment are trained with.

    Attributes:
        epochs: passes over the training clips.
        batch_size: clips a step.
        learning_rate: the highest, after a warm-up of one epoch; a cosine brings it to zero.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
    """

    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1


class ClipSet:
    """Clips as tensors that batches are cut from.

    Args:
        clips: with features.

    Attributes:
        labels: `(N,)`.
        films: what clips belong together, `(N,)`.
    """

    def __init__(self, clips: list[ClipFeatures]):
        self.labels = torch.tensor([clip.label for clip in clips])
        self.films = [clip.film for clip in clips]
        self.names = [clip.name for clip in clips]
        self.lengths = [len(clip.coarse) for clip in clips]
        self.cells = [_cells(clip) for clip in clips]  # (T, h, w, C) float16 each
        self.middle = [torch.from_numpy(clip.middle) for clip in clips]  # (T, C', 2h, 2w) float16 each

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def channels(self) -> tuple[int, int]:
        """C of the cells and C' of the stride-16 maps."""
        return self.cells[0].shape[-1], self.middle[0].shape[1]

    def targets(self, chosen: list[tuple[int, np.ndarray]]) -> torch.Tensor:
        """What a model is to answer for chosen clips, `(N,)`."""
        return self.labels[[clip for clip, _ in chosen]]

    def batch(self, chosen: list[tuple[int, np.ndarray]], with_middle: bool, flip: np.ndarray | None = None) -> dict:
        """`{"cells", "middle"}` of clips with equally many frames each, for `ClipClassifier`.

        Args:
            chosen: clip and frame numbers.
            with_middle: whether the stride-16 maps are wanted.
            flip: `(B,)` bool, which clips are mirrored; None: none.
        """
        cells = torch.stack([self.cells[clip][frames] for clip, frames in chosen]).float()  # (B, T, h, w, C)
        middle = torch.stack([self.middle[clip][frames] for clip, frames in chosen]).float() if with_middle else None
        if flip is not None and flip.any():
            cells[flip] = cells[flip].flip(3)
            if middle is not None:
                middle[flip] = middle[flip].flip(4)
        return {"cells": cells, "middle": middle}


def read_parts(
    inputs: Inputs, encoder: FrozenEncoder, labelled: LabelledSet = JHMDB, count: int | None = None
) -> tuple[dict[str, ClipSet], dict]:
    """The clips of "train", "dev" and "val", and what a report says of them.

    Args:
        inputs: of the experiment; two clips of each class in a quick run.
        encoder: what sees the frames.
        labelled: which set of clips.
        count: as for `read_clips`.
    """
    limit = 2 if inputs.quick else None
    parts = {
        part: ClipSet(read_clips(inputs.data, part, encoder, inputs.cache, limit, labelled, count))
        for part in ("train", "dev", "val")
    }
    val = parts["val"]
    return parts, {
        "set": labelled.about,
        **{f"{part}_clips": len(clips) for part, clips in parts.items()},
        "val_films": len(set(val.films)),
        "weights": encoder.key,
        "films": val.films,
    }


def _cells(clip: ClipFeatures) -> torch.Tensor:
    """Both maps on the coarse grid, channels last."""
    middle = F.avg_pool2d(torch.from_numpy(clip.middle).float(), 2).half()
    return torch.cat([torch.from_numpy(clip.coarse), middle], dim=1).permute(0, 2, 3, 1).contiguous()


def spread_frames(count: int, least: float = 0.6) -> FrameChoice:
    """`count` frames evenly over the clip; in training over a random part of it, of at least the share `least`."""

    def choose(length: int, rng: np.random.Generator | None) -> np.ndarray:
        first, last = 0.0, length - 1.0
        if rng is not None:
            span = (length - 1) * rng.uniform(least, 1.0)
            first = rng.uniform(0, length - 1 - span)
            last = first + span
        return np.linspace(first, last, count).round().astype(int)

    return choose


def all_frames(length: int, rng: np.random.Generator | None) -> np.ndarray:
    """The whole clip, however long it is; a `FrameChoice`."""
    return np.arange(length)


def middle_frames(count: int) -> FrameChoice:
    """`count` frames in a row from the middle of the clip, or all of a shorter one."""

    def choose(length: int, rng: np.random.Generator | None) -> np.ndarray:
        first = max((length - count) // 2, 0)
        return np.arange(first, min(first + count, length))

    return choose


def train_classifier(
    model, train: ClipSet, dev: ClipSet, settings: TrainingSettings, choose: FrameChoice, seed: int
) -> dict:
    """Trains in place and leaves the weights of the epoch with the lowest loss on the dev clips.

    Args:
        model: a `ClipClassifier`, made with the same seed.
        train: clips to learn from.
        dev: clips to choose the epoch by.
        settings: see `TrainingSettings`.
        choose: frames of an example.
        seed: of order, frames and dropout.

    Returns:
        `{"epoch", "dev_loss", "dev_top1"}` of the chosen epoch.
    """

    def loss_of(order, rng):
        chosen = [(clip, choose(train.lengths[clip], rng)) for clip in order]
        logits = _logits(model, train, chosen, rng.random(len(order)) < 0.5)
        return _loss(logits, train.targets(chosen), settings.label_smoothing)

    def judge():
        logits, targets = classify(model, dev, choose), dev.targets(_choose_all(dev, choose))
        return _loss(logits, targets).item(), 100 * (logits.argmax(-1) == targets).double().mean().item()

    return train_keeping_best(model, len(train), settings, seed, loss_of, judge)


def train_keeping_best(
    model,
    count: int,
    settings,
    seed: int,
    loss_of: Callable[[np.ndarray, np.random.Generator], torch.Tensor],
    judge: Callable[[], tuple[float, float]],
) -> dict:
    """Trains in place and leaves the weights of the epoch with the lowest loss on dev.

    Args:
        model: made with the same seed.
        count: clips to learn from.
        settings: with `epochs`, `batch_size`, `learning_rate` and `weight_decay`.
        seed: of order, frames and dropout.
        loss_of: the loss of some clips, by number.
        judge: loss and top-1 on dev, after every epoch.

    Returns:
        `{"epoch", "dev_loss", "dev_top1"}` of the chosen epoch.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    steps = math.ceil(count / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, steps, settings.epochs * steps)
    )
    best, kept = {"dev_loss": math.inf}, None
    for epoch in range(1, settings.epochs + 1):
        model.train()
        for order in np.array_split(rng.permutation(count), steps):
            loss = loss_of(order, rng)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        dev_loss, dev_top1 = judge()
        if dev_loss < best["dev_loss"]:
            best, kept = {"epoch": epoch, "dev_loss": dev_loss, "dev_top1": dev_top1}, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return best


@torch.inference_mode()
def classify(model, clips: ClipSet, choose: FrameChoice, batch_size: int = 32) -> torch.Tensor:
    """Logits `(N, classes)` of all clips in the chosen frames."""
    model.eval()
    chosen = _choose_all(clips, choose)
    parts = (chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size))
    return torch.cat([_logits(model, clips, part) for part in parts])


def _choose_all(clips: ClipSet, choose: FrameChoice) -> list[tuple[int, np.ndarray]]:
    return [(clip, choose(clips.lengths[clip], None)) for clip in range(len(clips))]


def _logits(model, clips: ClipSet, chosen: list, flip: np.ndarray | None = None) -> torch.Tensor:
    """Answers to chosen clips, in their order; those with equally many frames go through the model together."""
    lengths = np.array([len(frames) for _, frames in chosen])
    rows = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    found = [
        model(
            **clips.batch([chosen[row] for row in some], model.motion is not None, None if flip is None else flip[some])
        )
        for some in rows
    ]
    return torch.cat(found)[np.argsort(np.concatenate(rows))]


def _loss(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of clips, or of all their frames: (..., classes) and (...)."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), label_smoothing=smoothing)
