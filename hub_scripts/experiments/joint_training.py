"""Training one task or both on cached maps, with the tasks' gradients and the attention watched on the way.

Losses, balance, groups of parameters and schedule are those of `kinetrack train`. A task sees the same batches in the
same order whether it is trained alone or not, and starts from the same weights.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ...modeling.attention_kinetrack import relative_entropy
from ..train_config import TrainConfig
from ..train_objective import LearnedBalance, Objective
from ..train_optimizer import parameter_groups, warmup_cosine
from .joint_model import SharedGradients, TrainedStages, cosine

TASKS = ("actions", "tracking")
PIECES = 10  # of a training that its figures are averaged over


@dataclass(frozen=True)
class JointSettings:
    """What all trainings of these experiments have in common.

    Attributes:
        steps: of the optimiser, the same for all; the weights after the last are measured.
        warmup_steps: of the learning rate; a cosine to zero follows.
        learning_rate: of what does not start from ImageNet.
        backbone_learning_rate: of what does.
        balance_rate: of the learned weights of the losses, high because the trainings are short.
        action_clips, action_frames: clips a step, and frames of each.
        action_size: (height, width) that clips are resized to.
        windows, window_frames: windows of tracked people a step, and frames of each.
        window_size: (height, width) of a window.
        sequence_size: pixels of a sequence's frame: as many as this (height, width) has.
        hidden_size: D of the model.
    """

    steps: int = 360
    warmup_steps: int = 36
    learning_rate: float = 2e-3
    backbone_learning_rate: float = 5e-4
    balance_rate: float = 3e-2
    action_clips: int = 8
    action_frames: int = 4
    action_size: tuple[int, int] = (160, 224)
    windows: int = 2
    window_frames: int = 3
    window_size: tuple[int, int] = (192, 320)
    sequence_size: tuple[int, int] = (288, 384)
    hidden_size: int = 64


def train_jointly(
    model, stages: TrainedStages, batches: dict, settings: JointSettings, learned: bool, seed: int
) -> dict:
    """Trains in place.

    Args:
        model: with heads for the tasks of `batches`.
        stages: its backbone.
        batches: by task, `ActionBatches` or `SequenceBatches`.
        settings: see `JointSettings`.
        learned: whether losses are weighed by learned uncertainty, else by the configuration's factors.
        seed: of dropout.

    Returns:
        `loss`, by term; `entropy`, of alpha by task and of beta on clips, relative to uniform; with both tasks
        `cosine`, by pair (`across` the tasks, and, to compare with, two steps' batches of `actions` and of `tracking`)
        and shared part; and `negative`, the share of steps with a cosine across below 0: a mean for each of `PIECES`
        parts of the training. And `weights`, what the balance made of the terms in the end.
    """
    objective = Objective(model, LearnedBalance(model.config.loss_weights, learned))
    rates = TrainConfig(learning_rate=settings.learning_rate, backbone_learning_rate=settings.backbone_learning_rate)
    groups = parameter_groups(objective, rates)
    for group in groups:
        if group["place"] == "balance":
            group["lr"] = settings.balance_rate
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, settings.warmup_steps, settings.steps)
    )
    watch = _Watch(objective)
    objective.train()
    for step in range(settings.steps):
        optimizer.zero_grad()
        watch.begin()
        for number, (task, source) in enumerate(batches.items()):
            torch.manual_seed(1000 * seed + 2 * step + number)  # dropout does not depend on the other task
            batch = source.draw()
            stages.give(batch.fine, batch.middle)
            loss, output = objective({"pixel_values_videos": batch.blank, **batch.arguments})
            if loss is None:
                continue
            if not torch.isfinite(loss):
                raise FloatingPointError(f"Step {step}: the loss of {task} is not finite. Lower the learning rate.")
            loss.backward()
            watch.see(task, output)
        watch.compare()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), rates.max_grad_norm)
        optimizer.step()
        schedule.step()
    factors = {
        name: round(float(objective.balance.factors[name] * torch.exp(-value.detach().clamp(-1.5, 1.5))), 4)
        for name, value in objective.balance.log_variances.items()
        if name in watch.terms
    }
    return watch.summary() | {"weights": factors}


class _Watch:
    """What is noted of every step."""

    def __init__(self, objective: Objective):
        self._gradients = SharedGradients(objective.model)
        self._series: dict[tuple[str, ...], list[float]] = {}
        self._now: dict[str, dict[str, torch.Tensor]] = {}
        self._before: dict[str, dict[str, torch.Tensor]] = {}
        self.terms: set[str] = set()

    def begin(self) -> None:
        self._gradients.begin()
        self._before, self._now = self._now, {}

    def see(self, task: str, output) -> None:
        """After a task's backward pass."""
        self._now[task] = self._gradients.read()
        for name, term in output.loss_terms.items():
            self.terms.add(name)
            self._note(float(term.detach()), "loss", name)
        alpha = output.spatial_attention.detach().flatten(0, 1).flatten(1)  # (BT, cells)
        self._note(_entropy(alpha), "entropy", f"alpha on {task}")
        if task == "actions":
            self._note(_entropy(output.temporal_attention.detach()), "entropy", "beta on actions")

    def compare(self) -> None:
        """After all tasks of a step."""
        if len(self._now) < len(TASKS):
            return
        for part in self._gradients.parts:
            across = cosine(*(self._now[task][part] for task in TASKS))
            self._note(across, "cosine", "across", part)
            self._note(100.0 * (across < 0), "negative", part)
            for task in TASKS:
                if task in self._before:
                    self._note(cosine(self._now[task][part], self._before[task][part]), "cosine", task, part)

    def _note(self, value: float, *path: str) -> None:
        self._series.setdefault(path, []).append(value)

    def summary(self) -> dict:
        """Means over pieces of the training, nested by path."""
        found: dict = {}
        for path, series in self._series.items():
            place = found
            for key in path[:-1]:
                place = place.setdefault(key, {})
            pieces = np.array_split(np.array(series), min(PIECES, len(series)))
            place[path[-1]] = [round(float(piece.mean()), 4) for piece in pieces]
        return found


def _entropy(weights: torch.Tensor) -> float:
    """Mean entropy of rows of attention weights, relative to uniform."""
    return float(relative_entropy(weights, torch.ones_like(weights, dtype=torch.bool)).mean())
