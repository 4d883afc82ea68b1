"""Blocks with torchvision's structure and parameter names; average-pool shortcuts as timm's and mmdetection's V1d."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.blocks import Bottleneck, NormFunction, conv3x3, shortcut_of
from resnet_cuda.layers import Conv2d
from resnet_cuda.layers.conv_norm_act import conv_norm_relu
from resnet_cuda.scripted import ScriptedBlockWithRelu


class SameAvgPool2d(nn.Module):
    """The mean of each 2x2 window at stride 1, including zeros beyond the right and bottom edges [timm's
    AvgPool2dSame(2, 1)]: used where dilation replaces a shortcut's stride of 2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)


def shortcut(
    in_channels: int, out_channels: int, stride: int, dilated: bool, avg_down: bool, norm_func: NormFunction
) -> nn.Sequential | None:
    """A block's ``downsample``: 1x1 convolution (0) and norm (1), or with ``avg_down`` pooling (0), convolution (1) and
    norm (2); None if the shape does not change.

    ``dilated``: whether dilation replaces the stage's stride.
    """
    if stride == 1 and in_channels == out_channels:
        return None
    if not avg_down:
        return nn.Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False), norm_func(out_channels))
    pool: nn.Module = SameAvgPool2d() if dilated else nn.Identity()
    if stride != 1:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, Conv2d(in_channels, out_channels, 1, bias=False), norm_func(out_channels))


class BasicBlock(ScriptedBlockWithRelu, nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18, -34); in a deformable stage the second one is deformable.

    Args:
        stride: of the first convolution.
        dilations: of the two convolutions.
        downsample: see :func:`shortcut`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilations: tuple[int, int],
        downsample: nn.Sequential | None,
        norm_func: NormFunction,
        dcn_config: dict[str, Any],
    ):
        super().__init__()
        first, second = dilations
        self.conv1 = Conv2d(in_channels, channels, 3, stride, first, first, bias=False)
        self.bn1 = norm_func(channels)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(channels, dcn_config, dilation=second)
        self.bn2 = norm_func(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._scripted_with_relu(x)
        out = conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        return conv_norm_relu(self.conv2, self.bn2, self.relu, out, shortcut_of(self.downsample, x))


class TorchvisionBottleneck(ScriptedBlockWithRelu, Bottleneck):
    """1x1, 3x3, 1x1 with a shortcut; the stride is in the 3x3 or, with ``stride_in_1x1``, in the first 1x1, and the 3x3
    may be deformable. Unlike maskrcnn-benchmark's, it may have both a stride and a dilation.

    The shortcut is registered last, as in torchvision: an optimizer's state dict numbers parameters in that order.
    """

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        groups: int,
        stride: int,
        dilation: int,
        downsample: nn.Sequential | None,
        norm_func: NormFunction,
        dcn_config: dict[str, Any],
        stride_in_1x1: bool = False,
    ):
        nn.Module.__init__(self)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, bottleneck_channels, 1, stride_1x1, bias=False)
        self.bn1 = norm_func(bottleneck_channels)
        self.conv2 = conv3x3(bottleneck_channels, dcn_config, stride_3x3, groups, dilation)
        self.bn2 = norm_func(bottleneck_channels)
        self.conv3 = Conv2d(bottleneck_channels, out_channels, 1, bias=False)
        self.bn3 = norm_func(out_channels)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._scripted_with_relu(x)
        out = conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        out = conv_norm_relu(self.conv2, self.bn2, self.relu, out)
        return conv_norm_relu(self.conv3, self.bn3, self.relu, out, shortcut_of(self.downsample, x))
