"""How the weights move: groups with their own learning rates, the schedule, and the mean that is kept of them."""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .train_config import TrainConfig

_BLOCK = re.compile(r"backbone\..*?(?:stages?|layers?|blocks|s)[._]?(\d+)\.")


def parameter_groups(objective: nn.Module, settings: TrainConfig) -> list[dict]:
    """AdamW groups: by learning rate, with and without weight decay; the balance's own last.

    New layers learn at `learning_rate`, the backbone's last stage at `backbone_learning_rate`, and every stage before
    it at `layer_decay` times the rate of the next (ELECTRA, arXiv 2003.10555, Section 3.1).
    """
    named = [(name, parameter) for name, parameter in objective.model.named_parameters() if parameter.requires_grad]
    depths = {name: _depth(name) for name, _ in named if "backbone" in name}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[str, bool], dict] = {}
    for name, parameter in named:
        if name in depths:
            rate = settings.backbone_learning_rate * settings.layer_decay ** (deepest - depths[name])
            place = "backbone" if settings.layer_decay == 1 else f"backbone_{depths[name]}"
        else:
            rate, place = settings.learning_rate, "new"
        decays = parameter.dim() > 1 and "temporal_weight" not in name
        group = {"params": [], "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0, "place": place}
        groups.setdefault((place, decays), group)["params"].append(parameter)
    result = list(groups.values())
    learned = [parameter for parameter in objective.balance.parameters() if parameter.requires_grad]
    if learned:
        result.append({"params": learned, "lr": settings.learning_rate, "weight_decay": 0.0, "place": "balance"})
    return result


def _depth(name: str) -> int:
    """Stage of a backbone's parameter: 0 for the stem, then as the network numbers its stages."""
    found = _BLOCK.search(name)
    return 1 + int(found[1]) if found else 0


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


class WeightAverage:
    """The exponential mean of the weights, which is what is evaluated and saved.

    Only weights that are learned are kept, each process its own part of them where FSDP has cut them up.

    Args:
        parameters: of the model.
        decay: share of the old mean that stays in an update.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.decay, self.updates = decay, 0
        self.mean = [_local(parameter).clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights of another step into the mean; the first are taken as they are."""
        current = [_local(parameter) for parameter in self.parameters]
        torch._foreach_lerp_(self.mean, current, 1 - self.decay if self.updates else 1.0)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model has the mean of its weights."""
        own = [_local(parameter).clone() for parameter in self.parameters]
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            _local(parameter).copy_(value)

    def state_dict(self) -> dict:
        """For a checkpoint."""
        return {"updates": self.updates, "mean": self.mean}

    def load_state_dict(self, state: dict) -> None:
        """From a checkpoint.

        Raises:
            ValueError: the checkpoint's weights have other shapes.
        """
        if [tuple(value.shape) for value in state["mean"]] != [tuple(value.shape) for value in self.mean]:
            raise ValueError("The checkpoint belongs to another model or another set of learned weights. Use --fresh.")
        self.updates = state["updates"]
        for mine, saved in zip(self.mean, state["mean"], strict=True):
            mine.copy_(saved)


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """This process's part of a parameter, all of it without FSDP."""
    value = parameter.detach()
    return value.to_local() if hasattr(value, "to_local") else value
