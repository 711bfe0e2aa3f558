"""Layers with an equalised learning rate, and resampling with the filter (1, 3, 3, 1).

Equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1): weights start as N(0, 1) and are multiplied
by gain / sqrt(fan-in) in each pass, so that a step of Adam changes all layers alike.

Shapes: B batch, I and O input and output channels or features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""Negative slope of the leaky ReLUs."""


def leaky(x: Tensor) -> Tensor:
    """Return a leaky ReLU, scaled so that it keeps the variance of a symmetric input about the same."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


class EqualisedLinear(nn.Module):
    """Linear layer [B, I] -> [B, O].

    Args:
        inputs, outputs: I, O.
        bias: initial bias.
        rate: multiplier of the learning rate of weights and bias, as in StyleGAN's mapping network (Karras et al. 2019,
            arXiv:1812.04948, appendix C: 0.01).
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.gain, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T gain + b rate."""
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class EqualisedConv(nn.Module):
    """Convolution [B, I, H, W] -> [B, O, H, W] with zeros beyond the border, or at half the resolution.

    Args:
        inputs, outputs: I, O.
        kernel: size of the kernel, odd.
        halves: blur, then convolve with a stride of 2.
        bias: it has a bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, halves: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain, self.padding = 1 / math.sqrt(inputs * kernel**2), kernel // 2
        self.blur = Blur() if halves else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        weight = self.weight * self.gain
        if self.blur is None:
            return F.conv2d(x, weight, self.bias, padding=self.padding)
        if weight.shape[-1] == 1:  # Only every second pixel of the blurred picture counts.
            return F.conv2d(self.blur(x, padding=1, stride=2), weight, self.bias)
        return F.conv2d(self.blur(x, padding=1 + self.padding), weight, self.bias, stride=2)


class Blur(nn.Module):
    """The filter (1, 3, 3, 1) / 8 on each axis, with zeros beyond the border."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(line, line), persistent=False)

    def forward(self, x: Tensor, padding: int, stride: int = 1) -> Tensor:
        """Return each channel filtered, [B, C, (H + 2 padding - 4) / stride + 1, ...]."""
        return F.conv2d(x, self._kernels(x), stride=stride, padding=padding, groups=x.shape[1])

    def enlarge(self, x: Tensor) -> Tensor:
        """Return pictures of twice the size: zeros between the pixels, and the filter times 4, [B, C, 2H, 2W]."""
        return F.conv_transpose2d(x, 4 * self._kernels(x), stride=2, padding=1, groups=x.shape[1])

    def _kernels(self, x: Tensor) -> Tensor:
        return self.kernel.expand(x.shape[1], 1, *self.kernel.shape).contiguous()
