"""What the training of a captioner leaves on the disk to go on from: one file, whole or not there."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..atomic_files import atomic_path
from ..train_config import CaptionSettings

logger = logging.getLogger(__name__)


class CaptionProgress:
    """Where a training stands.

    Args:
        model: that learns.
        optimizer: its own.
        schedule: of the learning rate.

    Attributes:
        step: done, which is also the position in the data.
        best: `{"step", "dev_loss"}` of the best step so far; None before the first look at the dev videos.
        weights: of that step.
    """

    def __init__(self, model, optimizer, schedule):
        self._parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        self.step, self.best, self.weights = 0, None, None

    def state_dict(self) -> dict:
        """Everything needed to go on, the state of chance included."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return parts | {
            "step": self.step,
            "best": self.best,
            "weights": self.weights,
            "chance": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Goes on from there."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step, self.best, self.weights = state["step"], state["best"], state["weights"]
        torch.set_rng_state(state["chance"])


class CaptionCheckpoint:
    """The file that a training goes on from.

    Args:
        path: the file; its folder exists.
        key: what it belongs to, see `training_key`.
        resume: whether to go on from what lies there; else it is replaced.
    """

    def __init__(self, path: Path, key: str, resume: bool = True):
        self.path, self.key, self._resume = Path(path), key, resume

    def load(self, progress: CaptionProgress) -> None:
        """Goes on from the file, if there is one.

        Raises:
            ValueError: it belongs to another training.
        """
        if not self._resume or not self.path.is_file():
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state.pop("key") != self.key:
            raise ValueError(
                f"{self.path} belongs to other pairs, another model or other settings. Use --fresh, or another output."
            )
        progress.load_state_dict(state)
        logger.info("Resumed from step %d of %s.", progress.step, self.path)

    def save(self, progress: CaptionProgress) -> None:
        """Replaces the file."""
        with atomic_path(self.path) as partial:
            torch.save(progress.state_dict() | {"key": self.key}, partial)


def training_key(settings: CaptionSettings, seed: int, parts: Sequence[Sequence]) -> str:
    """Names what a training's result depends on, all but the number of steps, of which more may be asked for later.

    Args:
        settings: of the training.
        seed: of the training.
        parts: `CaptionedVideo`s to learn from, and to choose the step by.
    """
    known = {name: value for name, value in asdict(settings).items() if name not in ("pairs", "steps")}
    digest = hashlib.sha256(json.dumps([known, seed]).encode())
    for videos in parts:
        digest.update(json.dumps([video.said for video in videos]).encode())
        for video in videos:
            for values in vars(video.tokens).values():
                digest.update(values.tobytes())
    return digest.hexdigest()
