"""Trains one task or both jointly: every step sees batches of tracked sequences, of labelled action clips, or of both.

One process or many (`accelerate launch`), on a CPU or on GPUs: the same loop. What is done to a batch is in
`train_objective`, what the weights do in `train_optimizer`, what stays on the disk in `train_checkpoint`.
"""

import contextlib
import logging
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from .atomic_files import write_json_atomically
from .train_checkpoint import Progress, load_checkpoint, remove_checkpoint, save_checkpoint, write_model
from .train_config import TrainConfig
from .train_data import training_streams
from .train_log import TrainingLog
from .train_model import build_model, choose_learned, plain_model
from .train_objective import LearnedBalance, Objective, freeze_unreached
from .train_optimizer import WeightAverage, parameter_groups, warmup_cosine

logger = logging.getLogger(__name__)


def train(settings: TrainConfig, resume: bool = True) -> Path:
    """Runs the training to its end and writes the model.

    Args:
        settings: see `TrainConfig`. With `captions.pairs`, a text decoder is trained instead (`train_on_pairs`).
        resume: whether to go on from the newest checkpoint in `settings.output`.

    Returns:
        Folder of the trained model (exponential mean of the weights), ready for `from_pretrained`. The best one by
        `settings.best_metric` lies beside it in `best`.

    Raises:
        FileNotFoundError: no data or no weights where the settings say.
        ValueError: settings that do not fit each other or the data.
        FloatingPointError: a loss or its gradient is not finite; the message names the clips.
    """
    if settings.captions.pairs is not None:
        from .captioning.train_pairs import train_on_pairs

        return train_on_pairs(settings, resume)
    run = TrainingRun(settings)
    if resume:
        run.resume()
    else:
        run.forget()
    return run.finish()


class TrainingRun:
    """A training from its first step, or from a checkpoint, to its last.

    Args:
        settings: see `TrainConfig`.
    """

    def __init__(self, settings: TrainConfig):
        self.settings, self.output = settings, Path(settings.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.accelerator = accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.accumulation,
        )
        set_seed(settings.seed)
        self.streams = training_streams(
            settings, accelerator.process_index, accelerator.num_processes, accelerator.gradient_accumulation_steps
        )
        if settings.best_metric and settings.best_metric not in self.streams.metrics:
            known = ", ".join(self.streams.metrics)
            raise ValueError(f"best_metric={settings.best_metric!r} is not measured here. Choose one of {known}.")
        model, self.processor = build_model(settings, self.streams.labels, self.streams.tasks)
        self.streams.normalise(self.processor.image_mean, self.processor.image_std)
        self.config = model.config
        model.to(memory_format=torch.channels_last)
        if settings.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None)  # its name from Transformers 5.2x on
            (enable or model.gradient_checkpointing_enable)()
        if settings.compile:
            model.kinetrack.encoder.compile(backend=settings.compile, dynamic=False)
        model = choose_learned(model, settings, self.streams.tasks)
        objective = Objective(model, LearnedBalance(model.config.loss_weights, settings.learned_balance))
        if accelerator.num_processes > 1:
            freeze_unreached(objective, self.streams.form.canvas)
        optimizer = torch.optim.AdamW(parameter_groups(objective, settings))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, settings.warmup_steps, settings.steps)
        )
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.average = WeightAverage(self._bare_objective().model.parameters(), settings.ema_decay)
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.schedule, self.progress)
        set_seed(settings.seed + accelerator.process_index)  # each process has dropout of its own

    def resume(self) -> bool:
        """Goes on from the newest checkpoint in the output folder; False if there is none."""
        return load_checkpoint(self.accelerator, self.average, self.output, self.streams.key)

    def forget(self) -> None:
        """Removes an earlier run's checkpoint, which would be gone on with if this one stopped before its own."""
        if self.accelerator.is_main_process:
            remove_checkpoint(self.output)
        self.accelerator.wait_for_everyone()

    def finish(self) -> Path:
        """Trains from where the run stands to the last step; returns the folder of the model."""
        settings, progress = self.settings, self.progress
        if progress.step >= settings.steps:
            logger.warning("%s is trained to step %d already. --fresh begins anew.", self.output, progress.step)
        if self.accelerator.is_main_process:
            write_json_atomically(self.output / "settings.json", settings.to_dict(), default=str)
        log = TrainingLog(self.output, settings, self.accelerator, progress, self.streams.epoch_steps)
        saved = time.monotonic()
        for batches in self.streams.steps(progress.step, settings.steps):
            self._step(batches, log)
            if (
                settings.evaluate_every
                and progress.step % settings.evaluate_every == 0 < settings.steps - progress.step
            ):
                self._evaluate(log)
            if self._checkpoint_is_due(saved):
                self._save_checkpoint()
                saved = time.monotonic()
        self._evaluate(log)
        self._save_checkpoint()
        log.close()
        self.accelerator.wait_for_everyone()
        return self.output / "model"

    def _step(self, batches: list[dict], log: TrainingLog) -> None:
        """One step of the optimiser on one batch of every stream, or several where gradients are accumulated."""
        self.objective.train()
        drawn = self.settings.picture_every and self.progress.step % self.settings.picture_every == 0
        seen = []
        for number, batch in enumerate(batches, start=1):
            batch = to_device(batch, self.accelerator.device)
            names = batch.pop("names")
            seen += names
            with contextlib.nullcontext() if number == len(batches) else self.accelerator.no_sync(self.objective):
                loss, result = self.objective(batch)
                if loss is None:
                    continue
                self._check(loss, result, names)
                self.accelerator.backward(loss)
            log.add(batch, result)
            if drawn and number <= len(self.streams.tasks):
                log.picture(batch, result, self.streams.form, names, self.progress.step)
        self._touch_all()
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.settings.max_grad_norm)
        norm = float((norm.full_tensor() if hasattr(norm, "full_tensor") else norm) or 0.0)
        if not math.isfinite(norm) and self.accelerator.scaler is None:  # a scaler leaves such a step out
            raise self._not_finite("gradient", norm, seen)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update()
        self.progress.step += 1
        rates = {group["place"]: group["lr"] for group in self.optimizer.param_groups}
        log.step(self.progress.step, norm, rates, self._bare_objective().balance)

    def _touch_all(self) -> None:
        """What no batch reached has a gradient of zero, as it has in several processes: weights decay there as well."""
        for parameter in self.objective.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _check(self, loss: torch.Tensor, result, names: list[str]) -> None:
        if not torch.isfinite(loss):
            terms = {name: term.item() for name, term in (result.loss_terms or {}).items()}
            raise self._not_finite("loss", terms, names)

    def _not_finite(self, what: str, value, names: list[str]) -> FloatingPointError:
        return FloatingPointError(
            f"Step {self.progress.step}: the {what} is not finite, {value}, on {', '.join(names)}. Look at these files "
            "with `kinetrack data check`, or lower learning_rate."
        )

    def _save_checkpoint(self) -> None:
        self.progress.share(self.accelerator)
        save_checkpoint(self.accelerator, self.average, self.output, self.streams.key)

    def _checkpoint_is_due(self, saved: float) -> bool:
        if self.progress.step == self.settings.steps:
            return False  # the last one follows
        if self.settings.checkpoint_steps and self.progress.step % self.settings.checkpoint_steps == 0:
            return True
        due = time.monotonic() - saved > self.settings.checkpoint_minutes * 60
        if self.accelerator.num_processes > 1:  # the clocks of the processes may differ
            due = bool(self.accelerator.reduce(torch.tensor(float(due), device=self.accelerator.device), "max"))
        return due

    def _evaluate(self, log: TrainingLog) -> None:
        """Judges the mean of the weights on the dev clips and saves it, and once more when it is the best so far."""
        self.objective.eval()
        with self.average.applied():
            record = self.streams.evaluate(lambda batch: self.objective(batch)[1], self.accelerator, self.config)
            self._save_model("model", trained=self.progress.step == self.settings.steps)
            if record:
                metric = self._best_metric(record)
                if record[metric] > self.progress.best:
                    self.progress.best = record[metric]
                    self._save_model("best", trained=True)
            else:
                logger.warning(
                    "Nothing is set aside to judge the model by, so none is kept as the best: give clips in `val`, or "
                    "five and more of a class, or a larger data.dev_fraction."
                )
        log.write(record | {"step": self.progress.step})

    def _best_metric(self, record: dict[str, float]) -> str:
        metric = self.settings.best_metric or ("dev_top1" if "dev_top1" in record else next(iter(record)))
        if metric not in record:
            raise ValueError(f"best_metric={metric!r} was not measured. Choose one of {', '.join(record)}.")
        return metric

    def _save_model(self, name: str, trained: bool) -> None:
        """Writes model and processor, whole or not at all; all processes take part where FSDP has cut the weights."""
        learned = self._bare_objective().model
        if hasattr(learned, "merge_and_unload"):
            model, weights = plain_model(learned), None
        else:
            weights = self.accelerator.get_state_dict(self.objective)
            weights = {key.removeprefix("model."): value for key, value in weights.items() if key.startswith("model.")}
            model = learned
        if not self.accelerator.is_main_process:
            return
        model.config.trained = trained
        write_model(self.output / name, model, self.processor, state_dict=weights)

    def _bare_objective(self) -> Objective:
        return self.accelerator.unwrap_model(self.objective)


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
