"""What a region looks like and how much it changes: statistics of the encoder's features over its cells.

F has been through propagation and attention, which learn from the labels alone, and a few hundred clips are soon
learned by heart. The encoder's own features E are closer to the pictures, so their statistics are remembered beside f,
with those of s_t = |r_t - r_{t-1}|, the size of the frame differences, and their mean over the window is read by a
linear layer of its own. With w the share of a cell x that lies in the region, and sums over all cells:

    m = sum_x w(x) E(x) / sum_x w(x)        d = sqrt(sum_x w(x) E(x)^2 / sum_x w(x) - m^2 + 0.01)
    u = log(sum_x w(x) exp(4 E(x)) / sum_x w(x)) / 4

An addition to arXiv 2507.22421: mean and standard deviation after statistics pooling (Snyder et al., ICASSP 2018), u, a
soft maximum, after log-sum-exp pooling (arXiv 1411.6228). All of it is one product of w with a matrix.
"""

import torch

STATISTICS = 3  # of a channel: m, d and u
_SHARPNESS = 4.0  # of the soft maximum
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
    exponentials = (_SHARPNESS * cells).clamp(-_LARGEST, _LARGEST).exp()
    total = shares.sum(-1, keepdim=True)  # (N, R, 1)
    there = (total > 0).to(precise)
    sums = shares @ torch.cat([cells, cells.square(), exponentials], dim=-1) / total.clamp(min=1e-6)  # (N, R, 3S)
    mean, square, soft = sums.chunk(STATISTICS, dim=-1)
    spread = ((square - mean.square()).clamp(min=0) + _FLOOR).sqrt()
    highest = soft.clamp(min=torch.finfo(precise).tiny).log() / _SHARPNESS
    return (torch.cat([mean, spread, highest], dim=-1) * there).to(maps.dtype)
