"""What changes between neighbouring frames: differences of stride-8 features, brought to the stride-16 grid.

    r_t = norm(W_r C_t)        d_t = r_t - r_{t-1},  d_1 = 0        F_t <- F_t + g * W_o G(d_t)

C is the backbone's stride-8 map, G two small convolutions, and g (D,) a learned gain that starts small. Features
learned from still pictures hold almost no motion, and the recurrence over F sees it only after a stride of 16; a
difference keeps nothing of a still scene, so what is learned from it is not the place. (An addition to
arXiv 2507.22421, after the temporal differences of arXiv 2012.10071.)
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.encoder_kinetrack import ChannelNorm
from ..modeling.propagation_kinetrack import keep_last_valid


class MotionEncoder(nn.Module):
    """Frame differences (see the module's equation).

    Args:
        config: `KineTrackConfig`; `config.motion_channels` is M.
        in_channels: channels of the backbone's stride-8 map.
    """

    def __init__(self, config, in_channels: int):
        super().__init__()
        channels = config.motion_channels
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)  # W_r
        self.norm = ChannelNorm(channels, config.layer_norm_eps)
        self.downsample = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.output = nn.Conv2d(2 * channels, config.hidden_size, 1)  # W_o
        self.gain = nn.Parameter(torch.full((config.hidden_size,), 0.1))  # g

    def forward(
        self,
        fine: torch.Tensor,
        batch: int,
        frame_mask: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
        has_previous: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Motion features of a clip, and what the next chunk needs of it.

        Args:
            fine: the backbone's stride-8 map (B * T, C, H/8, W/8).
            batch: B.
            frame_mask: (B, T), True for valid frames, which come first.
            previous: r of the frame before this clip (B, M, H/8, W/8).
            has_previous: (B,) bool, False where the stream has not begun and `previous` means nothing.

        Returns:
            (B * T, D, H/16, W/16), and r of the last valid frame (B, M, H/8, W/8).
        """
        reduced = self.norm(self.reduce(fine)).unflatten(0, (batch, -1))  # (B, T, M, H/8, W/8)
        if previous is None:
            sequence = torch.cat([reduced[:, :1], reduced], dim=1)  # (B, 1 + T, M, H/8, W/8)
        else:
            first = torch.where(has_previous[:, None, None, None], previous, reduced[:, 0])
            sequence = torch.cat([first.unsqueeze(1), reduced], dim=1)
        difference = (sequence[:, 1:] - sequence[:, :-1]).flatten(0, 1)  # (BT, M, H/8, W/8)
        difference = difference.contiguous(memory_format=torch.channels_last)
        moving = F.relu(self.mix(F.relu(self.downsample(difference))))  # (BT, 2M, H/16, W/16)
        return self.output(moving) * self.gain[:, None, None], keep_last_valid(sequence, 1, frame_mask).squeeze(1)
