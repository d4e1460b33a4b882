"""A copy of a model that computes the same and that exporters and runtimes take well.

Layers are known by the names of their classes: a model from the Hub has classes of its own.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn


class FixedPadConv(nn.Module):
    """TensorFlow's "SAME" convolution on inputs whose sides its stride divides: the padding is a constant.

    Args:
        convolution: timm's `Conv2dSame`, which computes its padding from every input.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.settings = {"stride": convolution.stride, "dilation": convolution.dilation, "groups": convolution.groups}
        self.padding = []
        for kernel, stride, dilation in reversed(
            list(zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))
        ):
            total = max(0, (kernel - 1) * dilation + 1 - stride)
            self.padding += [total // 2, total - total // 2]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride)."""
        return F.conv2d(F.pad(inputs, self.padding), self.weight, self.bias, **self.settings)


class FirstAxisNorm(nn.Module):
    """`ChannelNorm` computed along the channel axis where it stands; runtimes would copy maps to move it last and back.

    Args:
        norm: a `ChannelNorm`.
        centred: whether the inputs have a mean of zero over the channels, see `centre`; finding it is a pass more.
    """

    def __init__(self, norm: nn.Module, centred: bool = False):
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach()[:, None, None].clone())  # (D, 1, 1)
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None].clone())
        self.eps, self.centred = norm.eps, centred

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, D, H, W) -> (N, D, H, W)."""
        if self.centred:
            length = torch.linalg.vector_norm(inputs, dim=1, keepdim=True)  # (N, 1, H, W), one operation of a runtime
            variance = length * length / len(self.weight)
        else:
            inputs = inputs - inputs.mean(1, keepdim=True)
            variance = (inputs * inputs).mean(1, keepdim=True)  # (N, 1, H, W)
        return inputs * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def centre(convolution: nn.Conv2d) -> None:
    """Makes the outputs of a convolution without bias have a mean of zero over the channels, in place.

    The mean of its outputs is itself a convolution, by the mean of its kernels.
    """
    weight = convolution.weight.data.double()  # (D, C, 1, 1)
    convolution.weight.data.copy_(weight - weight.mean(0, keepdim=True))


_REPLACEMENTS = {"Conv2dSame": FixedPadConv, "ChannelNorm": FirstAxisNorm}
# Modules in which a convolution without bias feeds nothing but a norm: the names of both.
_NORMALISED = {
    "SeparableConv": ("pointwise", "norm"),
    "MotionEncoder": ("reduce", "norm"),
    "KeypointHead": ("reduce.0", "reduce.1"),
}


def exportable_copy(model: nn.Module) -> nn.Module:
    """A float32 copy on the CPU with such layers replaced; outputs differ by the rounding of the norms' sums.

    Args:
        model: a KineTrack model with heads. It stays as it is.
    """
    model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    for module in list(model.modules()):
        normalised = _NORMALISED.get(type(module).__name__)
        if normalised is not None:
            convolution, norm = map(module.get_submodule, normalised)
            centre(convolution)
            module.set_submodule(normalised[1], FirstAxisNorm(norm, centred=True))
        for name, child in list(module.named_children()):
            replacement = _REPLACEMENTS.get(type(child).__name__)
            if replacement is not None:
                setattr(module, name, replacement(child))
    return model
