"""Trains both tasks jointly: every step sees a batch of MOT clips and a batch of labelled action clips."""

import json
import logging
import math
import os
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ..modeling.attention_kinetrack import relative_entropy
from ..processing.video_processing_kinetrack import KineTrackVideoProcessor
from .atomic_files import write_json_atomically
from .train_config import TrainConfig
from .train_data import training_streams
from .train_model import build_model, freeze_stages

logger = logging.getLogger(__name__)


class LearnedBalance(nn.Module):
    """Weighs loss terms by learned homoscedastic uncertainty: sum of exp(-s) L + s (Kendall et al., arXiv 1705.07115).

    A term counts only in steps in which it is active. These weights are the trainer's and never enter the model file.
    """

    def __init__(self, factors: dict[str, float], learned: bool):
        super().__init__()
        self.factors = factors
        self.log_variances = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(()), requires_grad=learned) for name in factors}
        )

    def forward(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Named scalars -> one scalar."""
        total = 0.0
        for name, term in terms.items():
            kind = name.split("_")[0]
            # Bounded, so that a task that is nearly solved cannot drown the others.
            log_variance = self.log_variances[kind].clamp(-1.5, 1.5)
            total = total + self.factors[kind] * (torch.exp(-log_variance) * term + log_variance)
        return total


def parameter_groups(model, balance: nn.Module, settings: TrainConfig) -> list[dict]:
    """AdamW groups: backbone and new layers, with and without weight decay, and the balance."""
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() > 1 and "temporal_weight" not in name
            groups.setdefault(("backbone" in name, decays), []).append(parameter)
    result = [
        {
            "params": parameters,
            "lr": settings.backbone_learning_rate if is_backbone else settings.learning_rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in groups.items()
    ]
    learned = [parameter for parameter in balance.parameters() if parameter.requires_grad]
    if learned:
        result.append({"params": learned, "lr": settings.learning_rate, "weight_decay": 0.0})
    return result


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def train(settings: TrainConfig, resume: bool = True) -> Path:
    """Runs the training to its end and writes the model.

    Args:
        settings: see `TrainConfig`.
        resume: whether to go on from the newest checkpoint in `settings.output`.

    Returns:
        Folder of the trained model (exponential mean of the weights), ready for `from_pretrained`.

    Raises:
        FileNotFoundError: no data or no weights where the settings say.
        FloatingPointError: a loss that is not finite; the message names the clips.
    """
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_seed(settings.seed)
    streams = training_streams(settings)
    model, processor = build_model(settings, streams.labels)
    streams.normalise(processor.image_mean, processor.image_std)
    freeze_stages(model, settings.frozen_stages)
    model.to(memory_format=torch.channels_last)
    balance = LearnedBalance(model.config.loss_weights, settings.learned_balance)
    optimizer = torch.optim.AdamW(parameter_groups(model, balance, settings))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, settings.warmup_steps, settings.steps)
    )
    model, balance, optimizer = accelerator.prepare(model, balance, optimizer)
    averaged = AveragedModel(
        accelerator.unwrap_model(model), multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=False
    )
    progress = Progress()
    accelerator.register_for_checkpointing(averaged, schedule, progress)
    if resume:
        load_checkpoint(accelerator, output)
    if accelerator.is_main_process:
        write_json_atomically(output / "settings.json", settings.to_dict(), default=str)

    log = TrainingLog(output, settings, accelerator.is_main_process, progress.step)
    saved = time.monotonic()
    for batches in streams.steps(progress.step, settings.steps):
        if progress.step > 0 and time.monotonic() - saved > settings.checkpoint_minutes * 60:
            save_checkpoint(accelerator, output)
            saved = time.monotonic()
        model.train()
        for batch in batches:
            batch = to_device(batch, accelerator.device)
            names = batch.pop("names")
            with accelerator.autocast():
                result = model(**batch)
                loss = balance(result.loss_terms) if result.loss_terms else None
            if loss is None:
                continue
            if not torch.isfinite(loss):
                terms = {name: term.item() for name, term in result.loss_terms.items()}
                raise FloatingPointError(f"Step {progress.step}: the loss is not finite, {terms}, on {list(names)}.")
            accelerator.backward(loss)
            log.add(result)
        norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        averaged.update_parameters(accelerator.unwrap_model(model))
        progress.step += 1
        log.step(progress.step, float(norm), schedule.get_last_lr(), balance)
        if settings.evaluate_every and progress.step % settings.evaluate_every == 0 and accelerator.is_main_process:
            save_model(averaged.module, processor, output / "model", trained=False)
            log.write(streams.evaluate(averaged.module) | {"step": progress.step})
    log.close()
    save_checkpoint(accelerator, output)
    if accelerator.is_main_process:
        save_model(averaged.module, processor, output / "model", trained=True)
        log.write(streams.evaluate(averaged.module) | {"step": progress.step})
    return output / "model"


class Progress:
    """Where the run stands; saved with every checkpoint."""

    def __init__(self):
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """For Accelerate."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """For Accelerate."""
        self.step = state["step"]


class TrainingLog:
    """Progress bar, TensorBoard scalars and `log.jsonl`: mean loss by term, entropies of attention, learning rates."""

    def __init__(self, output: Path, settings: TrainConfig, active: bool, start: int):
        self.path, self.every, self.active = output / "log.jsonl", settings.log_every, active
        self.bar = tqdm(total=settings.steps, initial=start, unit="step", disable=not active, dynamic_ncols=True)
        self.board = None
        if active:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(output / "tensorboard"))
            except ImportError:
                logger.warning("TensorBoard is not installed; only log.jsonl is written (pip install tensorboard).")
        self.sums: dict[str, list[float]] = {}
        self.started = time.monotonic()

    def add(self, result) -> None:
        """Takes note of one batch's output."""
        for name, term in result.loss_terms.items():
            self.sums.setdefault(name, []).append(float(term.detach()))
        beta = result.temporal_attention.detach().float()
        alpha = result.spatial_attention.detach().float().flatten(2)
        for name, weights in (("alpha_entropy", alpha.flatten(0, 1)), ("beta_entropy", beta)):
            self.sums.setdefault(name, []).append(float(relative_entropy(weights, weights > 0).mean()))

    def step(self, step: int, norm: float, rates: list[float], balance) -> None:
        """Moves the bar; writes a line every `log_every` steps."""
        self.bar.update()
        self.sums.setdefault("grad_norm", []).append(norm)
        if step % self.every:
            return
        record = {name: sum(values) / len(values) for name, values in self.sums.items()}
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in record.items() if "entropy" not in name})
        scales = getattr(balance, "module", balance).log_variances
        record |= {f"log_variance_{name}": float(value.detach()) for name, value in scales.items()}
        record |= {"step": step, "learning_rate": max(rates), "seconds": time.monotonic() - self.started}
        if record.get("alpha_entropy", 0) > 0.995:
            logger.warning(
                "Step %d: spatial attention is uniform (relative entropy %.4f).", step, record["alpha_entropy"]
            )
        self.sums = {}
        self.write(record)

    def write(self, record: dict) -> None:
        """Appends a line to the log and to TensorBoard."""
        if not self.active:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: _rounded(value) for name, value in record.items()}) + "\n")
        if self.board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, record["step"])
            self.board.flush()

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
        if self.board is not None:
            self.board.flush()


def _rounded(value):
    return round(value, 5) if isinstance(value, float) else value


def to_device(batch: dict, device: torch.device) -> dict:
    """Moves every tensor of a collated batch, nested ones included."""

    def move(value):
        if isinstance(value, torch.Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        if isinstance(value, list) and value and not isinstance(value[0], str):
            return [move(item) for item in value]
        return value

    return {key: move(value) for key, value in batch.items()}


def save_model(model, processor: KineTrackVideoProcessor, folder: Path, trained: bool) -> None:
    """Writes model and processor next to `folder` and swaps them in, so a half-written model is never seen."""
    staging = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    model.config.trained = trained
    model.save_pretrained(staging)
    processor.save_pretrained(staging)
    _swap(staging, folder)


def save_checkpoint(accelerator: Accelerator, output: Path) -> None:
    """Writes everything needed to go on: weights, optimiser, schedule, mean, RNG and position."""
    folder = output / "checkpoint"
    staging = folder.with_name("checkpoint.partial")
    if accelerator.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(staging), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _swap(staging, folder)


def load_checkpoint(accelerator: Accelerator, output: Path) -> None:
    """Goes on from the newest complete checkpoint, if there is one."""
    for name in ("checkpoint", "checkpoint.previous"):
        if (output / name).is_dir():
            accelerator.load_state(str(output / name))
            logger.info("Resumed from %s.", output / name)
            return


def _swap(staging: Path, folder: Path) -> None:
    """Puts a complete folder in the place of an older one; the older one is kept until then."""
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(staging, folder)
    shutil.rmtree(previous, ignore_errors=True)
