"""ResNet bodies with torchvision's structure and parameter names, and deformable stages."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda import untrained
from resnet_cuda._arguments import flags
from resnet_cuda.blocks import Bottleneck, NormFunction, conv3x3, shortcut_of
from resnet_cuda.layers import Conv2d, DeformConv2d, DFConv2d, FrozenBatchNorm2d, conv_norm_act
from resnet_cuda.output_shape import HasOutputShape, Level
from resnet_cuda.registry import Registry
from resnet_cuda.stage_specs import BLOCK_COUNTS


class Variant(NamedTuple):
    """A row of torchvision's ResNet table."""

    bottleneck: bool
    block_counts: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64


VARIANTS = Registry(
    "backbone_name",
    {
        "resnet18": Variant(False, (2, 2, 2, 2)),
        "resnet34": Variant(False, (3, 4, 6, 3)),
        **{f"resnet{depth}": Variant(True, counts) for depth, counts in BLOCK_COUNTS.items()},
        "resnext50_32x4d": Variant(True, BLOCK_COUNTS[50], 32, 4),
        "resnext101_32x8d": Variant(True, BLOCK_COUNTS[101], 32, 8),
        "resnext101_64x4d": Variant(True, BLOCK_COUNTS[101], 64, 4),
        "wide_resnet50_2": Variant(True, BLOCK_COUNTS[50], 1, 128),
        "wide_resnet101_2": Variant(True, BLOCK_COUNTS[101], 1, 128),
    },
)


def _group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, or for a narrow layer the greatest common divisor of 32 and its channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


NORMS = Registry(
    "norm_layer",
    {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d, "sync_bn": nn.SyncBatchNorm, "gn": _group_norm},
)


def norm_function(norm_layer: str | NormFunction) -> NormFunction:
    return norm_layer if callable(norm_layer) else NORMS[norm_layer]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18, -34); in a deformable stage the second one is deformable."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, norm_func: NormFunction, dcn_config: dict[str, Any]
    ):
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = norm_func(channels)
        self.conv2 = conv3x3(channels, dcn_config)
        self.bn2 = norm_func(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(Conv2d(in_channels, channels, 1, stride, bias=False), norm_func(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_act(self.conv1, self.bn1, x)
        return conv_norm_act(self.conv2, self.bn2, out, shortcut_of(self.downsample, x))


def _bottleneck(
    variant: Variant, in_channels: int, planes: int, stride: int, norm_func: NormFunction, dcn_config: dict[str, Any]
) -> Bottleneck:
    width = planes * variant.width_per_group // 64 * variant.groups
    block = Bottleneck(in_channels, width, 4 * planes, variant.groups, False, stride, 1, norm_func, dcn_config)
    # torchvision registers the shortcut last, and an optimizer's state dict numbers parameters in that order.
    if block.downsample is not None:
        block.downsample = block._modules.pop("downsample")
    return block


def _initialise(module: nn.Module) -> None:
    """torchvision's: Kaiming normal, fan out. The convolutions that predict offsets keep their zeros."""
    offsets = {layer.offset for layer in module.modules() if isinstance(layer, DFConv2d)}
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, DeformConv2d)) and layer not in offsets:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class TorchvisionBody(HasOutputShape, nn.Module):
    """``forward`` (N, 3, H, W) gives an OrderedDict of the returned stages' outputs, named "0", "1", ...

    Parameters: ``conv1``, ``bn1``, ``layer1..`` as in torchvision; there are no stages after the last returned one.

    Args:
        backbone_name: a name in ``VARIANTS``.
        norm_func: makes a norm from its number of channels.
        returned_layers: stages to return, 1 (C2) to 4 (C5).
        dcn_stages: which of C2 to C5 are deformable.
        modulated: DCNv2 (with mask) or v1.
        deformable_groups: offset groups of the deformable layers.
        width: channels of the stem and of the first stage's planes, 64 in every published network.
    """

    def __init__(
        self,
        backbone_name: str,
        norm_func: NormFunction,
        returned_layers: Sequence[int],
        dcn_stages: Sequence[bool],
        modulated: bool,
        deformable_groups: int,
        width: int = 64,
    ):
        super().__init__()
        variant = VARIANTS[backbone_name]
        dcn_stages = flags("TorchvisionBody", "dcn_stages", dcn_stages, 4)
        self.conv1 = Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm_func(width)
        self.output_names: dict[str, str] = {f"layer{layer}": str(i) for i, layer in enumerate(returned_layers)}
        self.stages = [f"layer{layer}" for layer in range(1, max(returned_layers) + 1)]
        self.stage_channels: dict[str, int] = {}
        self.stage_strides: dict[str, int] = {}
        make: Callable[..., nn.Module] = partial(_bottleneck, variant) if variant.bottleneck else BasicBlock
        in_channels = width
        for index, stage in enumerate(self.stages):
            planes = width * 2**index
            dcn_config = {
                "stage_with_dcn": dcn_stages[index],
                "with_modulated_dcn": modulated,
                "deformable_groups": deformable_groups,
            }
            blocks = []
            for block in range(variant.block_counts[index]):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(make(in_channels, planes, stride, norm_func, dcn_config))
                in_channels = planes * (4 if variant.bottleneck else 1)
            self.add_module(stage, nn.Sequential(*blocks))
            self.stage_channels[stage] = in_channels
            self.stage_strides[stage] = 4 * 2**index
        _initialise(self)
        untrained.warn_at_first_training_step(self)

    def levels(self) -> list[Level]:
        return [
            Level(name, self.stage_channels[stage], self.stage_strides[stage], stage)
            for stage, name in self.output_names.items()
        ]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x = conv_norm_act(self.conv1, self.bn1, x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        outputs: OrderedDict[str, Tensor] = OrderedDict()
        for stage in self.stages:
            x = getattr(self, stage)(x)
            if stage in self.output_names:
                outputs[self.output_names[stage]] = x
        return outputs
