"""What is minimised: the model's loss terms, weighed against each other, as one module for Accelerate to wrap."""

import logging

import torch
from torch import nn

from ..modeling.outputs_kinetrack import KineTrackOutput
from ..modeling.processes_kinetrack import num_processes

logger = logging.getLogger(__name__)


class LearnedBalance(nn.Module):
    """Weighs loss terms by learned homoscedastic uncertainty: sum of exp(-s) L + s (Kendall et al., arXiv 1705.07115).

    A term counts only in steps in which it is active. These weights are the trainer's and never enter the model file.

    Args:
        factors: a fixed factor for every kind of term.
        learned: whether s is learned; else it stays 0 and the factors alone count.
    """

    def __init__(self, factors: dict[str, float], learned: bool):
        super().__init__()
        self.factors = factors
        self.log_variances = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1), requires_grad=learned) for name in factors}
        )

    def forward(self, terms: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Named scalars -> one scalar, None without terms."""
        losses = []
        for name, term in terms.items():
            kind = name.split("_")[0]
            # Bounded, so that a task that is nearly solved cannot drown the others.
            log_variance = self.log_variances[kind].clamp(-1.5, 1.5).squeeze()
            losses.append(self.factors[kind] * (torch.exp(-log_variance) * term + log_variance))
        return sum(losses) if losses else None


class Objective(nn.Module):
    """Model and balance together.

    Args:
        model: a KineTrack model with heads.
        balance: of its loss terms.
    """

    def __init__(self, model: nn.Module, balance: LearnedBalance):
        super().__init__()
        self.model, self.balance = model, balance
        self._no_split_modules = model._no_split_modules  # where FSDP cuts

    def forward(self, batch: dict) -> tuple[torch.Tensor | None, KineTrackOutput]:
        """Runs a batch.

        Args:
            batch: arguments of the model.

        Returns:
            The loss, None where nothing was labelled, and the model's output.
        """
        result = self.model(**batch)
        loss = self.balance(result.loss_terms or {})
        if num_processes() > 1:
            loss = self.reach(result) if loss is None else loss + self.reach(result)
        return loss, result

    def reach(self, result: KineTrackOutput) -> torch.Tensor:
        """Zero, with a gradient of zero for every parameter: processes that wait for each other's gradients need one.

        A batch of one task teaches nothing to the other's head, and one process may have labels that another lacks.
        """
        outputs = [result.logits, *(result.group_logits or {}).values()]
        outputs += [result.heatmap_logits, result.distances, result.embeddings, result.keypoint_logits]
        reached = [output.float().sum() for output in outputs if output is not None]
        reached += [parameter.sum() for parameter in self.balance.parameters() if parameter.requires_grad]
        return 0.0 * sum(reached)


def freeze_unreached(objective: Objective, canvas: tuple[int, int]) -> None:
    """Takes the gradient from parameters that no output depends on, such as those of a part that is switched off.

    Processes that train together would wait for their gradients for ever.

    Args:
        objective: before it is wrapped.
        canvas: (height, width) of an input.
    """
    objective.eval()
    frames = torch.zeros(1, 1, 3, *canvas, device=next(objective.parameters()).device)
    objective.reach(objective.model(pixel_values_videos=frames)).backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            logger.info("Nothing depends on %s; it is not learned.", name)
            parameter.requires_grad_(False)
    objective.zero_grad()
