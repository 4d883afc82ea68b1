"""ResNet bodies with torchvision's structure and parameter names, and deformable stages."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnet_cuda import norm_statistics_warning
from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.blocks import NormFunction
from resnet_cuda.layers import DeformConv2d, DFConv2d, FrozenBatchNorm2d
from resnet_cuda.meta_copy import meta_copy, stride_of
from resnet_cuda.output_shape import HasOutputShape, Level
from resnet_cuda.registry import Registry
from resnet_cuda.scripted import HasRelu
from resnet_cuda.stage_specs import ALL_BLOCK_COUNTS, BLOCK_COUNTS
from resnet_cuda.torchvision_blocks import BasicBlock, TorchvisionBottleneck, shortcut
from resnet_cuda.torchvision_stem import stem, stem_convolution


class Variant(NamedTuple):
    """A row of torchvision's ResNet table, or of timm's: those with a deep stem and average-pool shortcuts (V1d)."""

    bottleneck: bool
    block_counts: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64
    deep_stem: bool = False
    avg_down: bool = False


_PLAIN = {f"resnet{depth}": Variant(depth in BLOCK_COUNTS, counts) for depth, counts in ALL_BLOCK_COUNTS.items()}

VARIANTS = Registry(
    "backbone_name",
    {
        **_PLAIN,
        **{f"{name}d": variant._replace(deep_stem=True, avg_down=True) for name, variant in _PLAIN.items()},
        "resnext50_32x4d": Variant(True, BLOCK_COUNTS[50], 32, 4),
        "resnext101_32x8d": Variant(True, BLOCK_COUNTS[101], 32, 8),
        "resnext101_64x4d": Variant(True, BLOCK_COUNTS[101], 64, 4),
        "wide_resnet50_2": Variant(True, BLOCK_COUNTS[50], 1, 128),
        "wide_resnet101_2": Variant(True, BLOCK_COUNTS[101], 1, 128),
    },
)


_STEM_STRIDE = 4


def _group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, or for a narrow layer the greatest common divisor of 32 and its channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


NORMS = Registry(
    "norm_layer",
    {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d, "sync_bn": nn.SyncBatchNorm, "gn": _group_norm},
)


def norm_function(norm_layer: str | NormFunction, name: str = "norm_layer") -> NormFunction:
    """The function that makes a norm from its number of channels: by name in ``NORMS``, or the callable itself."""
    if callable(norm_layer):
        return norm_layer
    if not isinstance(norm_layer, str) or norm_layer not in NORMS:
        raise KeyError(f"unknown {name} {norm_layer!r}; allowed are {', '.join(sorted(NORMS))} or a callable")
    return NORMS[norm_layer]


def _block(
    variant: Variant,
    in_channels: int,
    planes: int,
    geometry: tuple[int, int, int, bool],
    avg_down: bool,
    norm_func: NormFunction,
    dcn_config: dict[str, Any],
    stride_in_1x1: bool,
) -> nn.Module:
    """``geometry``: stride, dilation before and in this stage, whether this stage's stride became its dilation."""
    stride, before, dilation, replaced = geometry
    out_channels = planes * (4 if variant.bottleneck else 1)
    downsample = shortcut(in_channels, out_channels, stride, replaced, avg_down, norm_func)
    if not variant.bottleneck:  # whose first convolution is a 3x3
        return BasicBlock(in_channels, planes, stride, (before, dilation), downsample, norm_func, dcn_config)
    width = planes * variant.width_per_group // 64 * variant.groups
    return TorchvisionBottleneck(
        in_channels,
        width,
        out_channels,
        variant.groups,
        stride,
        before,
        downsample,
        norm_func,
        dcn_config,
        stride_in_1x1,
    )


def _initialise(module: nn.Module) -> None:
    """torchvision's: Kaiming normal, fan out. The convolutions that predict offsets keep their zeros."""
    offsets = {layer.offset for layer in module.modules() if isinstance(layer, DFConv2d)}
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, DeformConv2d)) and layer not in offsets:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class TorchvisionBody(HasOutputShape, HasRelu, nn.Module):
    """``forward`` (N, in_channels, H, W) gives an OrderedDict of the returned stages' outputs, named "0", "1", ...

    Its children are ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``layer1..`` as in torchvision, and each may be
    replaced; there are no stages after the last returned one. It has ``out_channels`` if one stage is returned.

    Args:
        backbone_name: a name in ``VARIANTS``.
        norm_func: makes a norm from its number of channels.
        returned_layers: stages to return, 1 (C2) to 4 (C5).
        dcn_stages: which of C2 to C5 are deformable.
        modulated: DCNv2 (with mask) or v1.
        deformable_groups: offset groups of the deformable layers.
        width: channels of the stem and of the first stage's planes, 64 in every published network.
        in_channels: channels of the image.
        replace_stride_with_dilation: three bools, which of C3 to C5 keep the size of their input and double the
            dilation of the 3x3 convolutions from their second block on [torchvision]. A basic block's second
            convolution has the new dilation in the first block, too [timm].
        deep_stem: three 3x3 convolutions instead of the 7x7; None: as in the variant.
        avg_down: the stride of shortcuts is an average pooling before their convolution; None: as in the variant.
        stride_in_1x1: the stride of bottlenecks is in their first convolution.

    Raises:
        KeyError: for an unknown ``backbone_name``, listing the known ones.
        ValueError: for any other argument that is out of range.
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
        *,
        in_channels: int = 3,
        replace_stride_with_dilation: Sequence[bool] = (False, False, False),
        deep_stem: bool | None = None,
        avg_down: bool | None = None,
        stride_in_1x1: bool = False,
    ):
        super().__init__()
        where = type(self).__name__
        variant = VARIANTS[backbone_name]
        dcn_stages = flags(where, "dcn_stages", dcn_stages, 4)
        dilated = (False, *flags(where, "replace_stride_with_dilation", replace_stride_with_dilation, 3))
        deep_stem = variant.deep_stem if deep_stem is None else flag(where, "deep_stem", deep_stem)
        avg_down = variant.avg_down if avg_down is None else flag(where, "avg_down", avg_down)
        stride_in_1x1 = flag(where, "stride_in_1x1", stride_in_1x1)
        width = integer(where, "width", width, 1)
        if deep_stem and width % 2:
            raise ValueError(f"{where}: width is {width}; it must be even in a network with a deep stem")
        self.in_channels = integer(where, "in_channels", in_channels, 1)
        self.conv1 = stem_convolution(self.in_channels, width, deep_stem, norm_func)
        self.bn1 = norm_func(width)
        self.relu = nn.ReLU()  # not in place: a hook may keep the norm's result
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.output_names: dict[str, str] = {f"layer{layer}": str(i) for i, layer in enumerate(returned_layers)}
        self.stages = [f"layer{layer}" for layer in range(1, max(returned_layers) + 1)]
        self.stage_channels: dict[str, int] = {}
        self.stage_strides: dict[str, int] = {}
        channels, total_stride, dilation = width, _STEM_STRIDE, 1
        for index, stage in enumerate(self.stages):
            dcn_config = {
                "stage_with_dcn": dcn_stages[index],
                "with_modulated_dcn": modulated,
                "deformable_groups": deformable_groups,
            }
            before = dilation
            stride = 2 if index > 0 and not dilated[index] else 1
            dilation *= 2 if dilated[index] else 1
            total_stride *= stride
            blocks = []
            for block in range(variant.block_counts[index]):
                first = block == 0
                geometry = (stride, before, dilation, dilated[index]) if first else (1, dilation, dilation, False)
                planes = width * 2**index
                blocks.append(
                    _block(variant, channels, planes, geometry, avg_down, norm_func, dcn_config, stride_in_1x1)
                )
                channels = width * 2**index * (4 if variant.bottleneck else 1)
            self.add_module(stage, nn.Sequential(*blocks))
            self.stage_channels[stage] = channels
            self.stage_strides[stage] = total_stride
        if len(self.output_names) == 1:
            self.out_channels = channels
        _initialise(self)
        norm_statistics_warning.warn_at_first_training_step(self)

    def levels(self) -> list[Level]:
        stem = self._stem_stride()
        return [
            Level(name, self.stage_channels[stage], self.stage_strides[stage] * stem // _STEM_STRIDE, stage)
            for stage, name in self.output_names.items()
        ]

    def _stem_stride(self) -> int:
        """4, or measured where the convolution or the pooling was replaced by one of another stride."""
        strides = [it.stride[0] for it in self.conv1.modules() if isinstance(it, nn.Conv2d)]
        pool = self.maxpool
        if math.prod(strides) == 2 and type(pool) is nn.MaxPool2d and pool.stride in (2, (2, 2)):
            return _STEM_STRIDE
        parts = nn.Sequential(self.conv1, self.bn1, self.relu, pool)
        size, dtype = 1024, next((it.dtype for it in parts.parameters()), torch.float32)
        with torch.no_grad():
            x = torch.empty(1, self.in_channels, size, size, device="meta", dtype=dtype)
            return stride_of(size, meta_copy(parts)(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if torch.jit.is_scripting():
            return self._scripted_stages(self._scripted_stem(x))
        x = self.maxpool(stem(self.conv1, self.bn1, self.relu, x))
        outputs: OrderedDict[str, Tensor] = OrderedDict()
        for stage in self.stages:
            x = getattr(self, stage)(x)
            if stage in self.output_names:
                outputs[self.output_names[stage]] = x
        return outputs

    def _scripted_stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.relu_is_fused and hasattr(self.bn1, "takes_residual"):
            x = self.bn1(x, None, True)
        else:
            x = self.relu(self.bn1(x))
        return self.maxpool(x)

    def _scripted_stages(self, x: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = OrderedDict()
        for name, stage in self.named_children():
            if name in self.stages:
                x = stage(x)
            if name in self.output_names:
                outputs[self.output_names[name]] = x
        return outputs
