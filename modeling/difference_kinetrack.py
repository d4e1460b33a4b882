"""What moves between neighbouring frames, from stride-8 features, brought to the stride-16 grid.

    r_t = norm(W_r C_t)          d_t = r_t - r_{t-1},  d_1 = 0
    c_t(q, s) = <r^_t(q), r^_{t-1}(q + s)>,  |s| <= `motion_reach` cells of stride 8
    F_t <- F_t + g * W_o G([down(d_t), c_t])

C is the backbone's stride-8 map, G two small convolutions, and g (D,) a learned gain that starts small. c is there
where `motion_reach` is not 0, r^ being r of unit length (averaged over the four fine cells of a coarse one for q).
Features learned from still pictures hold almost no motion, and the recurrence over F sees it only after a stride of 16.
A difference keeps nothing of a still scene, and a correlation says where things went without saying what they look
like: neither lets the place be learned in the action's stead. (An addition
to arXiv 2507.22421, after the temporal differences of arXiv 2012.10071 and the displacements of arXiv 2007.09933.)
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.encoder_kinetrack import ChannelNorm
from ..modeling.propagation_kinetrack import keep_last_valid


class MotionEncoder(nn.Module):
    """Frame differences and displacements (see the module's equations).

    Args:
        config: `KineTrackConfig`; `config.motion_channels` is M.
        in_channels: channels of the backbone's stride-8 map.
    """

    def __init__(self, config, in_channels: int):
        super().__init__()
        channels = config.motion_channels
        self.reach, self.measured = config.motion_reach, bool(config.statistics_channels)
        displacements = (2 * self.reach + 1) ** 2 if self.reach else 0
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)  # W_r
        self.norm = ChannelNorm(channels, config.layer_norm_eps)
        self.downsample = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(2 * channels + displacements, 2 * channels, 3, padding=1)
        self.output = nn.Conv2d(2 * channels, config.hidden_size, 1)  # W_o
        self.gain = nn.Parameter(torch.full((config.hidden_size,), 0.1))  # g

    def forward(
        self,
        fine: torch.Tensor,
        batch: int,
        frame_mask: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
        has_previous: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Motion features of a clip, what the next chunk needs of it, and how large the differences are.

        Args:
            fine: the backbone's stride-8 map (B * T, C, H/8, W/8).
            batch: B.
            frame_mask: (B, T), True for valid frames, which come first.
            previous: r of the frame before this clip (B, M, H/8, W/8).
            has_previous: (B,) bool, False where the stream has not begun and `previous` means nothing.

        Returns:
            (B * T, D, H/16, W/16), r of the last valid frame (B, M, H/8, W/8), and |d| (B * T, M, H/32, W/32), each
            coarse cell with the mean of its sixteen fine ones; None if the model has no region statistics.
        """
        present = self.norm(self.reduce(fine))  # (BT, M, H/8, W/8)
        present = present.unflatten(0, (batch, -1))  # (B, T, M, H/8, W/8)
        if previous is None:
            sequence = torch.cat([present[:, :1], present], dim=1)  # (B, 1 + T, M, H/8, W/8)
        else:
            first = torch.where(has_previous[:, None, None, None], previous, present[:, 0])
            sequence = torch.cat([first.unsqueeze(1), present], dim=1)
        now, before = sequence[:, 1:].flatten(0, 1), sequence[:, :-1].flatten(0, 1)  # (BT, M, H/8, W/8)
        change = now - before
        moving = F.relu(self.downsample(change.contiguous(memory_format=torch.channels_last)))  # (BT, 2M, H/16, W/16)
        if self.reach:
            seen = displacements(now, before, self.reach)
            moving = torch.cat([moving, seen], dim=1)
        moving = self.output(F.relu(self.mix(moving)))  # (BT, D, H/16, W/16)
        last = keep_last_valid(sequence, 1, frame_mask).squeeze(1)
        size = F.avg_pool2d(change.abs(), 4) if self.measured else None
        return moving * self.gain[:, None, None], last, size


def displacements(now: torch.Tensor, before: torch.Tensor, reach: int) -> torch.Tensor:
    """Cosine similarities of every coarse cell with the fine cells about it one frame earlier.

    Args:
        now: (N, M, 2h, 2w).
        before: (N, M, 2h, 2w), one frame earlier.
        reach: largest displacement in fine cells.

    Returns:
        (N, (2 * reach + 1)^2, h, w), one channel a displacement down and across, row by row; 0 beyond the border.
    """
    query = F.avg_pool2d(F.normalize(now, dim=1), 2)  # (N, M, h, w)
    keys = F.pad(F.normalize(before, dim=1), [reach] * 4)  # (N, M, 2h + 2 * reach, 2w + 2 * reach)
    # Ends counted from the border, since exporters take sizes for constants.
    steps = [slice(step, step - 2 * reach or None, 2) for step in range(2 * reach + 1)]
    return torch.stack([(query * keys[..., down, across]).sum(1) for down in steps for across in steps], dim=1)
