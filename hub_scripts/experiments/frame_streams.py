"""Clips joined into streams with a label for every frame, and classifiers that answer at every frame of a stream."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .clip_training import ClipSet, FrameChoice
from .statistics import share_by_unit
from .temporal_models import ClipClassifier


class ClipStream:
    """Clips one after the other, in random orders; items for `train_classifier` are pieces of T frames.

    Args:
        clips: what is played.
        length: T.
        orders: how often all clips come, each time in a new order.
        seed: of the orders.

    Attributes:
        clip_of: which clip each frame of the stream is from, `(N,)`.
        labels: of every frame, `(N,)`.
        lengths: N for every item, since an item of training may begin anywhere.
    """

    def __init__(self, clips: ClipSet, length: int, orders: int = 1, seed: int = 0):
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(len(clips)) for _ in range(orders)])
        self.clips, self.length = clips, length
        self.clip_of = np.repeat(order, [clips.lengths[clip] for clip in order])
        self._frame_of = np.concatenate([np.arange(clips.lengths[clip]) for clip in order])
        self.labels = clips.labels[self.clip_of]
        self._items = max(len(self.clip_of) // orders // length, 1)
        self.lengths = [len(self.clip_of)] * self._items

    def __len__(self) -> int:
        return self._items

    def targets(self, chosen: list[tuple[int, np.ndarray]]) -> torch.Tensor:
        """The label of every frame of chosen pieces, `(B, T)`."""
        return self.labels[np.stack([self._places(*piece) for piece in chosen])]

    def batch(self, chosen: list[tuple[int, np.ndarray]], with_middle: bool, flip: np.ndarray | None = None) -> dict:
        """See `ClipSet.batch`; the frames of an item are counted from where its piece of the stream begins."""
        pieces = [self.read(self._places(*piece)) for piece in chosen]
        cells = torch.stack(pieces).float()  # (B, T, h, w, C)
        if flip is not None and flip.any():
            cells[flip] = cells[flip].flip(3)
        return {"cells": cells}

    def read(self, places: np.ndarray) -> torch.Tensor:
        """Cells `(T, h, w, C)` float16 of frames of the stream."""
        return torch.stack([self.clips.cells[self.clip_of[place]][self._frame_of[place]] for place in places])

    def _places(self, item: int, frames: np.ndarray) -> np.ndarray:
        return (item * self.length + frames) % len(self.clip_of)


def pieces_of(length: int) -> FrameChoice:
    """The pieces of a `ClipStream` one after the other, or in training pieces that begin anywhere."""

    def choose(stream_length: int, rng: np.random.Generator | None) -> np.ndarray:
        first = 0 if rng is None else int(rng.integers(stream_length))
        return first + np.arange(length)

    return choose


class FrameClassifier(nn.Module):
    """A clip classifier that answers at every frame, from the frames up to it.

    Args:
        classifier: causal.
        horizon: W, how many frames Eq. 5 looks back over, the present one included.
    """

    def __init__(self, classifier: ClipClassifier, horizon: int):
        super().__init__()
        self.classifier, self.horizon = classifier, horizon
        self.motion = classifier.motion

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) -> logits (B, T, classes)."""
        return self.classifier.head(attend_at_every_frame(*self.classifier.look(cells), self.horizon))[0]


def attend_at_every_frame(scores: torch.Tensor, pooled: torch.Tensor, horizon: int) -> torch.Tensor:
    """Eq. 5 at each frame over the `horizon` frames that end with it: (B, T) and (B, T, D) -> R (B, T, D)."""
    past = horizon - 1
    scores = F.pad(scores, (past, 0), value=float("-inf")).unfold(1, horizon, 1)  # (B, T, W)
    pooled = F.pad(pooled, (0, 0, past, 0)).unfold(1, horizon, 1)  # (B, T, D, W)
    return (pooled @ scores.softmax(-1).unsqueeze(-1)).squeeze(-1)


@torch.inference_mode()
def stream_accuracy(model: ClipClassifier, stream: ClipStream, horizons: Sequence[int]) -> dict[str, list[float]]:
    """Share of each clip's frames answered right, by horizon, when all of it is one stream with one state.

    What a causal model answers frame by frame with a carried state is what it answers here in one pass.
    """
    model.eval()
    scores, pooled = model.look(stream.read(np.arange(len(stream.clip_of)))[None].float())
    answers = {
        horizon: model.head(attend_at_every_frame(scores, pooled, horizon))[0][0].argmax(1) for horizon in horizons
    }
    return {str(horizon): _shares(answer, stream) for horizon, answer in answers.items()}


@torch.inference_mode()
def piece_accuracy(model: ClipClassifier, stream: ClipStream, length: int) -> list[float]:
    """Share of each clip's frames answered right when the stream is cut into pieces of `length` frames, each alone."""
    model.eval()
    frames, found = FrameClassifier(model, length).eval(), []
    for start in range(0, len(stream.clip_of), length):
        places = np.arange(start, min(start + length, len(stream.clip_of)))
        found.append(frames(stream.read(places)[None].float())[0].argmax(1))
    return _shares(torch.cat(found), stream)


def _shares(answers: torch.Tensor, stream: ClipStream) -> list[float]:
    return share_by_unit((answers == stream.labels).numpy(), stream.clip_of, len(stream.clips))
