"""What a run leaves on the disk: a checkpoint to go on from, and models to use. Each is whole or not there."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from .atomic_files import write_json_atomically
from .train_optimizer import WeightAverage

logger = logging.getLogger(__name__)

_KEY = "data.sha256"
_PLACES = ("checkpoint", "checkpoint.previous")


class Progress:
    """Where the run stands; saved with every checkpoint.

    Attributes:
        step: optimiser steps done, which is also the position in the data.
        best: the best value of the chosen metric so far.
        sums: of the log's values since its last line.
    """

    def __init__(self):
        self.step, self.best, self.sums = 0, float("-inf"), {}

    def state_dict(self) -> dict:
        """For Accelerate."""
        sums = {name: [float(value) for value in values] for name, values in self.sums.items()}
        return {"step": self.step, "best": self.best, "sums": sums}

    def load_state_dict(self, state: dict) -> None:
        """For Accelerate."""
        self.step, self.best, self.sums = state["step"], state["best"], state["sums"]

    def share(self, accelerator: Accelerator) -> None:
        """Gives all processes the mean of their sums, since what the main process saves is read by all of them."""
        if accelerator.num_processes == 1:
            return
        for name, values in self.sums.items():
            own = torch.tensor([float(value) for value in values], device=accelerator.device)
            self.sums[name] = accelerator.reduce(own, "mean").tolist()


def save_checkpoint(accelerator: Accelerator, average: WeightAverage, output: Path, key: str) -> None:
    """Writes everything needed to go on: weights, optimiser, schedule, mean, generators of chance and position.

    Args:
        accelerator: of the run.
        average: likewise.
        output: the run's folder.
        key: of the data, `TrainingStreams.key`.
    """
    folder = output / "checkpoint"
    staging = folder.with_name("checkpoint.partial")
    if accelerator.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(staging), safe_serialization=True)
    if accelerator.is_main_process or _is_cut(accelerator):
        torch.save(average.state_dict(), staging / _average_name(accelerator))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (staging / _KEY).write_text(key)
        replace_folder(staging, folder)


def load_checkpoint(accelerator: Accelerator, average: WeightAverage, output: Path, key: str) -> bool:
    """Goes on from the newest complete checkpoint; False if there is none. Arguments as for `save_checkpoint`.

    Raises:
        ValueError: the checkpoint belongs to another model, or to other data.
    """
    for name in _PLACES:
        folder = output / name
        if folder.is_dir():
            if (folder / _KEY).is_file() and (folder / _KEY).read_text() != key:
                raise ValueError(
                    f"{output} holds a training on other clips or classes. Give another output=FOLDER, or begin anew "
                    "with --fresh."
                )
            state = torch.load(folder / _average_name(accelerator), map_location="cpu", weights_only=True)
            average.load_state_dict(state)  # first, because it says what is wrong in one line
            accelerator.load_state(str(folder))
            logger.info("Resumed from %s.", folder)
            return True
    return False


def remove_checkpoint(output: Path) -> None:
    """Nothing in this folder is gone on with any more."""
    for name in _PLACES:
        shutil.rmtree(output / name, ignore_errors=True)


def _is_cut(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def _average_name(accelerator: Accelerator) -> str:
    return f"average_{accelerator.process_index if _is_cut(accelerator) else 0}.pt"


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder beside `folder` and swaps it in, so that a half-written one is never seen."""
    staging = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    write(staging)
    replace_folder(staging, folder)


def write_model(folder: Path, model, processor, records: dict[str, dict] | None = None, **options) -> None:
    """Writes a model and its processor as `write_folder` does.

    Args:
        folder: for them.
        model: to be saved.
        processor: likewise.
        records: contents of JSON files beside them, by name.
        options: of `model.save_pretrained`.
    """

    def write(staging: Path) -> None:
        model.save_pretrained(staging, **options)
        processor.save_pretrained(staging)
        for name, content in (records or {}).items():
            write_json_atomically(staging / name, content)

    write_folder(folder, write)


def replace_folder(staging: Path, folder: Path) -> None:
    """Puts a complete folder in the place of an older one; the older one is kept until then."""
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(staging, folder)
    shutil.rmtree(previous, ignore_errors=True)
