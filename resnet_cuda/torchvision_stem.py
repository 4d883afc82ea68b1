"""The stem's convolutions with torchvision's names: one 7x7 or, as in timm's V1c and V1d, three 3x3."""

from __future__ import annotations

from torch import Tensor, nn

from resnet_cuda.blocks import NormFunction
from resnet_cuda.layers import Conv2d
from resnet_cuda.layers.conv_norm_act import conv_norm_relu
from resnet_cuda.layers.hooks import runs_only

_PARTS = 7


def stem_convolution(in_channels: int, width: int, deep: bool, norm_func: NormFunction) -> nn.Module:
    """``conv1`` of a body: a 7x7 convolution with stride 2 to ``width`` channels.

    ``deep``: a Sequential of 3x3 convolutions (0, 3, 6) to width / 2, width / 2 and width channels, the first with
    stride 2, with norms (1, 4) and ReLUs (2, 5) in between: timm's parameter names.
    """
    if not deep:
        return Conv2d(in_channels, width, 7, 2, 3, bias=False)
    half = width // 2
    return nn.Sequential(
        Conv2d(in_channels, half, 3, 2, 1, bias=False),
        norm_func(half),
        nn.ReLU(),  # not in place: a hook may keep the norm's result
        Conv2d(half, half, 3, 1, 1, bias=False),
        norm_func(half),
        nn.ReLU(),
        Conv2d(half, width, 3, 1, 1, bias=False),
    )


def stem(conv1: nn.Module, bn1: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """``relu(bn1(conv1(x)))``; each norm and ReLU is fused where no hook observes the parts."""
    if runs_only(conv1, nn.Sequential) and len(conv1) == _PARTS:
        first, norm1, relu1, second, norm2, relu2, conv1 = conv1
        x = conv_norm_relu(first, norm1, relu1, x)
        x = conv_norm_relu(second, norm2, relu2, x)
    return conv_norm_relu(conv1, bn1, relu, x)
