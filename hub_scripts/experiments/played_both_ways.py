"""Clips that are played forwards and backwards, and models that learn which is which.

Both ways of a clip stand in one batch, and the loss is that of the difference between their scores, so that nothing is
learned but what playing backwards changes. A model for which the order of frames does not count scores both alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .clip_training import ClipSet, spread_frames, train_keeping_best

GRID = 3  # cells of a side that a frame is averaged to
GAP = 3  # frames between the two that `look_at_frames` compares
_TIE = 1e-4  # a smaller difference between two scores is rounding
_RIDGE = 1000.0


@dataclass(frozen=True)
class PairSettings:
    """How they learn.

    Attributes:
        epochs: passes over the clips; the one with the lowest loss on dev is kept.
        batch_size: clips a step, each of them both ways.
        learning_rate: the highest, after a warm-up of one epoch; a cosine brings it to zero.
        weight_decay: of AdamW.
        dropout: of the classifier.
    """

    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.0


class Plays:
    """Clips on a coarse grid, every channel divided by its spread within clips.

    Args:
        clips: what is played.
        frames: of a play, spread over the clip.
        trim: frames left out at both ends of every clip.
        scales: spreads by map, of the clips that are learned from; None: of these.
    """

    def __init__(self, clips: ClipSet, frames: int, trim: int = 0, scales: dict | None = None):
        self.films, self._choose = clips.films, spread_frames(frames)
        maps = {
            "cells": [_averaged(cells.permute(0, 3, 1, 2), GRID).permute(0, 2, 3, 1) for cells in clips.cells],
            "middle": [_averaged(middle, 2 * GRID) for middle in clips.middle],
        }
        self.scales = scales or {name: _spread(found, 3 if name == "cells" else 1) for name, found in maps.items()}
        cut = {name: [clip[trim : len(clip) - trim] for clip in found] for name, found in maps.items()}
        self._maps = {name: [clip / self.scales[name] for clip in found] for name, found in cut.items()}

    def __len__(self) -> int:
        return len(self.films)

    def both_ways(self, chosen, with_middle: bool, rng: np.random.Generator | None = None) -> dict:
        """`{"cells", "middle"}` for `ClipClassifier`: N chosen clips forwards, then the same N backwards.

        Args:
            chosen: numbers of clips.
            with_middle: whether the stride-16 maps are wanted.
            rng: draws which part of a clip is shown, and whether mirrored; None: all of it, as it is.
        """
        rows = [self._choose(len(self._maps["cells"][clip]), rng) for clip in chosen]
        flip = rng.random(len(rows)) < 0.5 if rng is not None else np.zeros(len(rows), bool)
        found = {"middle": None}
        for name, axis in (("cells", 3), ("middle", 4))[: 2 if with_middle else 1]:
            maps = torch.stack([self._maps[name][clip][frames] for clip, frames in zip(chosen, rows, strict=True)])
            maps[flip] = maps[flip].flip(axis)
            found[name] = torch.cat([maps, maps.flip(1)])
        return found

    def summaries(self, clip: int) -> torch.Tensor:
        """Every frame of a clip averaged over the grid, `(T, C)`."""
        return self._maps["cells"][clip].mean((1, 2))


def _averaged(maps: torch.Tensor, side: int) -> torch.Tensor:
    """(T, C, h, w) to (T, C, side, side)."""
    return F.adaptive_avg_pool2d(maps.float(), side)


def _spread(clips: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Standard deviation of each channel around its mean over a clip's frames, shaped to divide by."""
    around = torch.cat([(clip - clip.mean(0)).movedim(axis, -1).flatten(0, 2) for clip in clips])
    spread = around.std(0) + 1e-3
    return spread if axis == 3 else spread[:, None, None]


def train_both_ways(model, train: Plays, dev: Plays, settings: PairSettings, seed: int) -> dict:
    """Trains in place and leaves the weights of the epoch with the lowest loss on dev.

    Args:
        model: a `ClipClassifier` of two labels, forwards and backwards, made with the same seed.
        train: to learn from.
        dev: to choose the epoch by.
        settings: see `PairSettings`.
        seed: of order, frames and mirroring.

    Returns:
        `{"epoch", "dev_loss", "dev_top1"}` of that epoch.
    """

    def loss_of(chosen, rng):
        return F.softplus(-_margins(model, train, chosen, rng)).mean()

    def judge():
        margins = score_margins(model, dev)
        return F.softplus(-margins).mean().item(), 100 * np.mean([int(mark) for mark in judge_margins(margins)])

    return train_keeping_best(model, len(train), settings, seed, loss_of, judge)


def _margins(model, plays: Plays, chosen, rng: np.random.Generator | None = None) -> torch.Tensor:
    """By how much each chosen clip scores higher forwards than backwards, `(N,)`."""
    logits = model(**plays.both_ways(chosen, model.motion is not None, rng))  # (2N, 2)
    forwards, backwards = (logits[:, 0] - logits[:, 1]).chunk(2)
    return forwards - backwards


@torch.inference_mode()
def score_margins(model, plays: Plays, batch_size: int = 32) -> torch.Tensor:
    """`_margins` of all clips."""
    model.eval()
    numbers = np.arange(len(plays))
    return torch.cat([_margins(model, plays, numbers[n : n + batch_size]) for n in range(0, len(plays), batch_size)])


def judge_margins(margins: torch.Tensor) -> str:
    """Two marks a clip, for `Results.hits`: "11" told right, "00" told wrong, "10" no difference, which is a guess."""
    return "".join("10" if abs(margin) < _TIE else "11" if margin > 0 else "00" for margin in margins.tolist())


def look_at_frames(train: Plays, val: Plays, earlier: int, later: int) -> torch.Tensor:
    """What one frame alone gives away: a linear score of frames, learned as the models are.

    Args:
        train: to learn from, by ridge regression.
        val: to answer about.
        earlier: number of the frame that is to score higher; negative ones count from the end.
        later: of the one to score lower.

    Returns:
        By how much it does, `(N,)`.
    """
    taught, asked = (
        torch.stack([frames[earlier] - frames[later] for frames in map(plays.summaries, range(len(plays)))])
        for plays in (train, val)
    )
    weights = torch.linalg.solve(taught.T @ taught + _RIDGE * torch.eye(taught.shape[1]), taught.sum(0))
    return asked @ weights
