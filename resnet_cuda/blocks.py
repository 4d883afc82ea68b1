"""Bottlenecks and stems [maskrcnn_benchmark.modeling.backbone.resnet], He et al. 2015 (arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda._arguments import flag, integer
from resnet_cuda.layers import Conv2d, DFConv2d, FrozenBatchNorm2d, conv_norm_act, group_norm
from resnet_cuda.layers.conv_norm_act import conv_norm
from resnet_cuda.registry import Registry
from resnet_cuda.scripted import ScriptedBlock, ScriptedStem

NormFunction = Callable[[int], nn.Module]

# maskrcnn-benchmark folds its weights without an epsilon.
FixedBatchNorm = partial(FrozenBatchNorm2d, eps=0.0)


def conv3x3(
    channels: int, dcn_config: dict[str, Any], stride: int = 1, groups: int = 1, dilation: int = 1
) -> Conv2d | DFConv2d:
    """A block's 3x3 convolution of ``channels`` in and out; deformable if ``dcn_config["stage_with_dcn"]``."""
    if not flag("Bottleneck", "dcn_config['stage_with_dcn']", dcn_config.get("stage_with_dcn", False)):
        return Conv2d(channels, channels, 3, stride, dilation, dilation, groups, bias=False)
    return DFConv2d(
        channels,
        channels,
        with_modulated_dcn=dcn_config.get("with_modulated_dcn", False),
        stride=stride,
        groups=groups,
        dilation=dilation,
        deformable_groups=dcn_config.get("deformable_groups", 1),
    )


class Bottleneck(ScriptedBlock, nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the 3x3 may be deformable
    [maskrcnn_benchmark.modeling.backbone.resnet.Bottleneck].

    ``forward`` (N, in_channels, H, W) gives (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Parameters: ``conv1..3``, ``bn1..3`` and, where the shape changes, ``downsample.0`` and ``downsample.1``; a
    deformable ``conv2`` is a :class:`~resnet_cuda.layers.DFConv2d`.

    Args:
        in_channels, bottleneck_channels, out_channels: of input, 3x3 and output.
        num_groups: groups of the 3x3 (ResNeXt).
        stride_in_1x1: True: the first 1x1 has the stride (MSRA's and Caffe2's weights). False: the 3x3 has it
            (torchvision's, GN's and ResNeXt's).
        stride: 1 or 2. A dilated block ignores it and keeps the size.
        dilation: of the 3x3.
        norm_func: makes a norm from its number of channels.
        dcn_config: ``stage_with_dcn``, ``with_modulated_dcn``, ``deformable_groups``.

    Raises:
        ValueError: for a flag that is not a bool, and for groups that do not divide ``bottleneck_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        num_groups: int,
        stride_in_1x1: bool,
        stride: int,
        dilation: int,
        norm_func: NormFunction,
        dcn_config: dict[str, Any] | None = None,
    ):
        super().__init__()
        if dilation > 1:
            stride = 1
        self.downsample = None
        if in_channels != out_channels or stride != 1:
            self.downsample = nn.Sequential(
                Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), norm_func(out_channels)
            )
        stride_in_1x1 = flag("Bottleneck", "stride_in_1x1", stride_in_1x1)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, bottleneck_channels, kernel_size=1, stride=stride_1x1, bias=False)
        self.bn1 = norm_func(bottleneck_channels)
        self.conv2 = conv3x3(bottleneck_channels, dcn_config or {}, stride_3x3, num_groups, dilation)
        conv2 = self.conv2.conv if isinstance(self.conv2, DFConv2d) else self.conv2
        nn.init.kaiming_uniform_(conv2.weight, a=1)
        self.bn2 = norm_func(bottleneck_channels)
        self.conv3 = Conv2d(bottleneck_channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = norm_func(out_channels)
        for conv in (self.conv1, self.conv3, *([] if self.downsample is None else [self.downsample[0]])):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._scripted(x)
        out = conv_norm_act(self.conv1, self.bn1, x)
        out = conv_norm_act(self.conv2, self.bn2, out)
        return conv_norm_act(self.conv3, self.bn3, out, shortcut_of(self.downsample, x))


def shortcut_of(downsample: nn.Module | None, x: Tensor) -> Tensor:
    """The shortcut of a block: ``x``, or ``downsample(x)``, fused where no hook observes it."""
    return x if downsample is None else conv_norm(downsample, x)


def stem_in_channels(cfg: Any) -> int:
    """The image's channels; 3 for maskrcnn-benchmark's nodes, which have no key for them."""
    name = "STEM_IN_CHANNELS"
    return integer("", f"MODEL.RESNETS.{name}", getattr(cfg.MODEL.RESNETS, name, 3), 1)


class BaseStem(ScriptedStem, nn.Module):
    """7x7 convolution with stride 2, norm, ReLU, 3x3 max pooling with stride 2; parameters ``conv1``, ``bn1``
    [maskrcnn_benchmark.modeling.backbone.resnet.BaseStem].

    ``forward`` (N, C, H, W) gives (N, ``MODEL.RESNETS.STEM_OUT_CHANNELS``, ceil(H / 4), ceil(W / 4)).

    It reads images of ``MODEL.RESNETS.STEM_IN_CHANNELS`` channels, 3 where a node has no such key.
    """

    def __init__(self, cfg: Any, norm_func: NormFunction):
        super().__init__()
        out_channels = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
        self.conv1 = Conv2d(stem_in_channels(cfg), out_channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm_func(out_channels)
        nn.init.kaiming_uniform_(self.conv1.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._scripted_stem(x)
        x = conv_norm_act(self.conv1, self.bn1, x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class BottleneckWithFixedBatchNorm(Bottleneck):
    """:class:`Bottleneck` with FrozenBatchNorm2d, eps 0
    [maskrcnn_benchmark.modeling.backbone.resnet.BottleneckWithFixedBatchNorm]."""

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        num_groups: int = 1,
        stride_in_1x1: bool = True,
        stride: int = 1,
        dilation: int = 1,
        dcn_config: dict[str, Any] | None = None,
    ):
        channels = in_channels, bottleneck_channels, out_channels
        super().__init__(*channels, num_groups, stride_in_1x1, stride, dilation, FixedBatchNorm, dcn_config)


class BottleneckWithGN(Bottleneck):
    """:class:`Bottleneck` with group normalisation [maskrcnn_benchmark.modeling.backbone.resnet.BottleneckWithGN].

    ``norm_func``: as :func:`norm_of_config` makes it.
    """

    def __init__(
        self,
        in_channels: int,
        bottleneck_channels: int,
        out_channels: int,
        num_groups: int = 1,
        stride_in_1x1: bool = True,
        stride: int = 1,
        dilation: int = 1,
        dcn_config: dict[str, Any] | None = None,
        norm_func: NormFunction = group_norm,
    ):
        channels = in_channels, bottleneck_channels, out_channels
        super().__init__(*channels, num_groups, stride_in_1x1, stride, dilation, norm_func, dcn_config)


class StemWithFixedBatchNorm(BaseStem):
    """:class:`BaseStem` with FrozenBatchNorm2d, eps 0
    [maskrcnn_benchmark.modeling.backbone.resnet.StemWithFixedBatchNorm]."""

    def __init__(self, cfg: Any):
        super().__init__(cfg, FixedBatchNorm)


class StemWithGN(BaseStem):
    """:class:`BaseStem` with group normalisation [maskrcnn_benchmark.modeling.backbone.resnet.StemWithGN]."""

    def __init__(self, cfg: Any):
        super().__init__(cfg, norm_of_config(cfg))


def norm_of_config(cfg: Any) -> NormFunction:
    """Group normalisation with the sizes of ``MODEL.GROUP_NORM``, or defaults if the node has no such section."""
    section = getattr(cfg.MODEL, "GROUP_NORM", None)
    if section is None:
        return group_norm
    return partial(group_norm, num_groups=section.NUM_GROUPS, dim_per_group=section.DIM_PER_GP, eps=section.EPSILON)


_TRANSFORMATION_MODULES = Registry(
    "MODEL.RESNETS.TRANS_FUNC",
    {"BottleneckWithFixedBatchNorm": BottleneckWithFixedBatchNorm, "BottleneckWithGN": BottleneckWithGN},
)

_STEM_MODULES = Registry(
    "MODEL.RESNETS.STEM_FUNC", {"StemWithFixedBatchNorm": StemWithFixedBatchNorm, "StemWithGN": StemWithGN}
)
