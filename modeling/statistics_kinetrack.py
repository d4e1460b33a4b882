"""What a region looks like and how it changes: statistics of the backbone's last map over its cells and over time.

F has been through propagation and attention, which learn from the labels alone, and a few hundred clips are soon
learned by heart. The backbone's last map E is closer to the pictures, so its statistics are remembered beside f,
with those of s_t = |r_t - r_{t-1}|, the size of the frame differences, and how they go through the window is read by a
linear layer of its own. With w the share of a cell x that lies in the region, and sums over all cells:

    m = sum_x w(x) E(x) / sum_x w(x)        d = sqrt(sum_x w(x) E(x)^2 / sum_x w(x) - m^2 + 0.01)
    u = log(sum_x w(x) exp(E(x)) / sum_x w(x))

Of each of them the window has its mean and, which tell of movement, its standard deviation and its mean step |x_t -
x_{t-1}| from one frame to the next.

An addition to arXiv 2507.22421: mean and standard deviation after statistics pooling (Snyder et al., ICASSP 2018), u, a
soft maximum, after log-sum-exp pooling (arXiv 1411.6228). Over cells all of it is one product of w with a matrix.
"""

import torch

STATISTICS = 3  # of a channel over cells: m, d and u
_LARGEST = 60.0  # exponent of the soft maximum, so that no exponential overflows
_FLOOR = 0.01  # of a variance: below it, rounding decides


def region_statistics(maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Statistics of every channel over R regions of every frame; no gradient goes beyond them.

    Args:
        maps: (N, S, h, w), E and s.
        weight: (N, R, h, w), share of each cell in each region; all zero for a region that is not there.

    Returns:
        (N, R, 3S): m, d and u, all zero for a region that is not there.
    """
    precise = torch.promote_types(maps.dtype, torch.float32)
    cells = maps.detach().flatten(2).transpose(1, 2).to(precise)  # (N, G, S)
    shares = weight.detach().flatten(2).to(precise)  # (N, R, G)
    exponentials = cells.clamp(-_LARGEST, _LARGEST).exp()
    total = shares.sum(-1, keepdim=True)  # (N, R, 1)
    there = (total > 0).to(precise)
    sums = shares @ torch.cat([cells, cells.square(), exponentials], dim=-1) / total.clamp(min=1e-6)  # (N, R, 3S)
    mean, square, soft = sums.chunk(STATISTICS, dim=-1)
    spread = ((square - mean.square()).clamp(min=0) + _FLOOR).sqrt()
    highest = soft.clamp(min=torch.finfo(precise).tiny).log()
    return (torch.cat([mean, spread, highest], dim=-1) * there).to(maps.dtype)


def window_statistics(values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """How the statistics of a region go through a window.

    Args:
        values: (B, W, S), in the order of time.
        seen: (B, W) bool, the entries that count; the others hold nothing.

    Returns:
        (B, 3S): mean, standard deviation and mean step between two entries in a row; all zero where nothing is seen.
    """
    share, both = _shares(seen, values), _shares(seen[:, 1:] & seen[:, :-1], values)  # (B, 1, W), (B, 1, W - 1)
    mean = share @ values  # (B, 1, S)
    spread = (share @ (values - mean).square()).sqrt()
    step = both @ (values[:, 1:] - values[:, :-1]).abs()
    return torch.cat([mean, spread, step], dim=-1).squeeze(1)


def _shares(counted: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Weights (B, 1, n) of equal size that sum to one over those of (B, n) that count."""
    return (counted.to(like.dtype) / counted.sum(1, keepdim=True).clamp(min=1)).unsqueeze(1)
