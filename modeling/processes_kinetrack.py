"""What the processes of one training share: how many labels there are in all, and each other's embeddings.

Data-parallel training averages the gradients of its processes. For that average to be the gradient of the whole batch,
each loss is divided not by the process's own number of labels but by their mean over the processes (as DETR does,
arXiv 2005.12872). Outside a training with several processes all of this does nothing.
"""

import torch
import torch.distributed as dist


def num_processes() -> int:
    """Processes that train together; 1 where no gradient is wanted, so that one process may evaluate by itself."""
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Mean of a scalar over the training processes, which must all call this; without gradient.

    Args:
        count: scalar of any type.

    Returns:
        float32 scalar.
    """
    total = count.detach().float()
    if num_processes() > 1:
        total = total.clone()
        dist.all_reduce(total)
        total /= num_processes()
    return total


def gather_rows(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The rows of all training processes, which must all call this, in the order of their ranks.

    Gradients flow back to the process whose row it was.

    Args:
        rows: (n, ...), n of each process's own.

    Returns:
        (sum of all n, ...), and where this process's rows begin.
    """
    if num_processes() == 1:
        return rows, 0
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(num_processes())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])  # (n_max, ...)
    gathered = _Gather.apply(padded)  # (W, n_max, ...)
    everyone = torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
    return everyone, sum(counts[: dist.get_rank()])


class _Gather(torch.autograd.Function):
    """(n, ...) of every process -> (W, n, ...); the gradient of a row is the sum of all processes' gradients of it."""

    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
