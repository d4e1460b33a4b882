"""What a run shows while it runs: a progress bar, `log.jsonl`, and TensorBoard with curves and pictures."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..modeling.attention_kinetrack import relative_entropy
from ..processing.detection_kinetrack import decode_detections
from .atomic_files import write_atomically
from .data.contact_sheet import draw_sample
from .train_checkpoint import Progress
from .train_config import TrainConfig

logger = logging.getLogger(__name__)

UNIFORM = 0.995  # relative entropy from which attention is called uniform
SINGLE = 0.02  # and up to which it is said to look at one place alone
_ATTENTIONS = {"alpha_entropy": "spatial attention (α)", "beta_entropy": "temporal attention (β)"}
_TERMS = ("action", "region", "attention", "heatmap", "box", "identity", "keypoint", "group")


class TrainingLog:
    """Mean loss by term, entropies of attention, learning rates and speed, over all processes.

    Args:
        output: folder of the run.
        settings: of the run.
        accelerator: only the main process writes.
        progress: of the run; carries the sums since the last line, so that a resumed run's lines are the same.
        epoch_steps: steps in which the largest data set is drawn once.
    """

    def __init__(
        self, output: Path, settings: TrainConfig, accelerator: Accelerator, progress: Progress, epoch_steps: float
    ):
        self.path, self.settings, self.accelerator = output / "log.jsonl", settings, accelerator
        self.progress, self.epoch_steps = progress, epoch_steps
        self.active = accelerator.is_main_process
        self.bar = tqdm(
            total=settings.steps, initial=progress.step, unit="step", disable=not self.active, dynamic_ncols=True
        )
        self.board = None
        self.warned: set[str] = set()
        self.images, self.seconds = 0, 0.0
        self.started = self.last = time.monotonic()
        if self.active:
            self._forget_after(progress.step)
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(output / "tensorboard"), purge_step=progress.step + 1)
            except ImportError:
                logger.warning("TensorBoard is not installed; only log.jsonl is written (pip install tensorboard).")

    def _forget_after(self, step: int) -> None:
        """Drops the lines of steps that are done again after a checkpoint was loaded."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            write_atomically(self.path, "".join(kept))

    def add(self, batch: dict, result) -> None:
        """Takes note of one batch and its output, without waiting for the device."""
        values = dict(result.loss_terms or {})
        beta = result.temporal_attention.detach().float()
        alpha = result.spatial_attention.detach().float().flatten(2)
        values["alpha_entropy"] = relative_entropy(alpha.flatten(0, 1), alpha.flatten(0, 1) > 0).mean()
        if beta.shape[1] > 1:  # of one frame there is nothing to choose
            values["beta_entropy"] = relative_entropy(beta, beta > 0).mean()
        for name, value in values.items():
            self.progress.sums.setdefault(name, []).append(value.detach())
        self.images += batch["frame_mask"].numel() * self.accelerator.num_processes

    def step(self, step: int, norm: float, rates: dict[str, float], balance) -> None:
        """Moves the bar; writes a line every `log_every` steps."""
        now = time.monotonic()
        self.seconds, self.last = self.seconds + now - self.last, now
        self.bar.update()
        self.progress.sums.setdefault("grad_norm", []).append(norm)
        if step % self.settings.log_every:
            return
        record = self._means()
        speed = self.images / max(self.seconds, 1e-9)
        shown = {name: f"{value:.3f}" for name, value in record.items() if name.split("_")[0] in _TERMS}
        self.bar.set_postfix({"images/s": f"{speed:.1f}"} | shown)
        record |= {f"log_variance_{name}": float(value.detach()) for name, value in balance.log_variances.items()}
        record |= {f"learning_rate_{name}": rate for name, rate in rates.items()}
        record |= {"learning_rate": max(rates.values()), "images_per_second": speed}
        record |= {"step": step, "epoch": step / self.epoch_steps, "seconds": now - self.started}
        self._warn_of_collapse(record)
        self.progress.sums, self.images, self.seconds = {}, 0, 0.0
        self.write(record)

    def _means(self) -> dict[str, float]:
        """The sums' means over batches and processes; all processes have the same names."""
        sums = self.progress.sums
        device = self.accelerator.device
        means = torch.stack(
            [torch.stack([torch.as_tensor(v, device=device).float() for v in sums[n]]).mean() for n in sums]
        )
        if self.accelerator.num_processes > 1:
            means = self.accelerator.reduce(means, "mean")
        return dict(zip(sums, means.tolist(), strict=True))

    def _warn_of_collapse(self, record: dict) -> None:
        if record["step"] <= self.settings.warmup_steps:
            return  # attention starts uniform
        for name, attention in _ATTENTIONS.items():
            entropy = record.get(name, 0.5)
            if SINGLE <= entropy <= UNIFORM:
                self.warned.discard(name)
            elif name not in self.warned and self.active:
                self.warned.add(name)
                what = "is uniform: it chooses nothing" if entropy > UNIFORM else "sees one place alone"
                with logging_redirect_tqdm():
                    logger.warning(
                        "Step %d: the %s %s (relative entropy %.4f, collapse).",
                        record["step"],
                        attention,
                        what,
                        entropy,
                    )

    def picture(self, batch: dict, result, form, names: list[str], step: int) -> None:
        """Shows the batch's first clip in TensorBoard: labels in green, what the model finds in yellow."""
        if self.board is None:
            return
        sample = {
            name: batch[name][0].cpu() for name in ("pixel_values_videos", "frame_mask", "pixel_mask", "labels")
        } | {"frame_labels": batch["frame_labels"][0], "names": names[0]}
        sample["group_labels"] = {name: int(values[0]) for name, values in batch["group_labels"].items()}
        length = len(sample["frame_mask"])
        regions = batch["region_boxes"]
        sample["region_boxes"] = torch.full((length, 4), torch.nan) if regions is None else regions[0].cpu()
        found = None
        if result.heatmap_logits is not None:
            maps = (result.heatmap_logits[0].detach().cpu(), result.distances[0].detach().cpu())
            found = [frame["boxes"] for frame in decode_detections(*maps, threshold=0.4)]
        chosen = sorted({0, length // 2, length - 1})
        image = np.asarray(draw_sample(sample, chosen, form.image_mean, form.image_std, found))
        task = "tracking" if any(frame is not None for frame in sample["frame_labels"]) else "actions"
        self.board.add_image(f"clips/{task}", image, step, dataformats="HWC")

    def write(self, record: dict) -> None:
        """Appends a line to the log and to TensorBoard."""
        if not self.active:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: _rounded(value) for name, value in record.items()}) + "\n")
        if self.board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(_tag(name), value, record["step"])
            self.board.flush()

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
        if self.board is not None:
            self.board.close()


def _tag(name: str) -> str:
    """The group of curves in TensorBoard that a value belongs to."""
    if name.endswith("_entropy"):
        return f"attention/{name}"
    if name.startswith("learning_rate_"):
        return name.replace("_rate_", "_rate/")
    if name.startswith("log_variance_"):
        return name.replace("_variance_", "_variance/")
    if name.startswith("dev_"):
        return name.replace("dev_", "dev/", 1)
    return f"loss/{name}" if name.split("_")[0] in _TERMS else f"run/{name}"


def _rounded(value):
    return float(f"{value:.8g}") if isinstance(value, float) else value
