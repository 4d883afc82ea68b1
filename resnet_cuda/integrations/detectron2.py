"""detectron2's backbones with fused FrozenBatchNorm and this package's deformable convolution.

>>> import resnet_cuda.integrations.detectron2  # registers the backbones
>>> cfg.MODEL.BACKBONE.NAME = "build_resnet_cuda_fpn_backbone"  # instead of build_resnet_fpn_backbone
>>> model = detectron2.modeling.build_model(cfg)

Registered are ``build_resnet_cuda_backbone`` (C4, DC5), ``build_resnet_cuda_fpn_backbone`` and
``build_retinanet_resnet_cuda_fpn_backbone``. They read the same keys as detectron2's builders and have the same
parameter names, so that its checkpoints and model zoo load unchanged. ``ResNet`` and ``FPN`` are detectron2's.
``BasicStem``, ``BasicBlock``, ``BottleneckBlock`` and ``DeformBottleneckBlock`` are classes of this module with the
arguments of detectron2's, for lazy configurations. Deformable stages need no compiled detectron2, on CPU or GPU.

The C5 head of C4 models, ``Res5ROIHeads``, stays detectron2's. One difference is visible: ``conv1(x)`` is the
convolution alone, and the block calls ``conv1.norm`` itself, so that a hook on ``conv1`` sees the result before the
norm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda import layers
from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.integrations._fused import fused_layer
from resnet_cuda.integrations._peer import missing, refuse
from resnet_cuda.stage_specs import ALL_BLOCK_COUNTS

try:
    from detectron2.layers import CNNBlockBase, ShapeSpec, get_norm
    from detectron2.modeling import BACKBONE_REGISTRY
    from detectron2.modeling.backbone import FPN, ResNet
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
except ImportError as error:
    raise missing(
        "detectron2", "detectron2: a checkout of it on the Python path, and pip install fvcore iopath omegaconf", error
    ) from error

_STAGES = ("res2", "res3", "res4", "res5")
_READ = {
    *("DEPTH", "OUT_FEATURES", "NUM_GROUPS", "NORM", "WIDTH_PER_GROUP", "STRIDE_IN_1X1", "RES5_DILATION"),
    *("RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS", "DEFORM_ON_PER_STAGE", "DEFORM_MODULATED", "DEFORM_NUM_GROUPS"),
}
# Keys that projects add, and the value under which they change nothing.
_NEUTRAL = {"STEM_TYPE": "basic", "RES4_DILATION": 1, "RES5_MULTI_GRID": [1, 1, 1]}


class FrozenBatchNorm2d(layers.FrozenBatchNorm2d):
    """This package's norm with detectron2's initial values and its rule for files with only scale and shift."""

    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__(num_features, eps)
        self.running_var -= eps

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *arguments):
        if local_metadata.get("version", None) is None or local_metadata["version"] < 2:
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)


def _norm(name: str, channels: int) -> nn.Module | None:
    return FrozenBatchNorm2d(channels) if name == "FrozenBN" else get_norm(name, channels)


def _conv(norm: str, in_channels: int, out_channels: int, kernel_size: int, stride=1, **options) -> layers.Conv2d:
    """A plain Conv2d, whose result may be overwritten, with the norm as a child that its forward does not call."""
    padding = kernel_size // 2 * options.get("dilation", 1)
    conv = layers.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False, **options)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    conv.norm = _norm(norm, out_channels)
    return conv


class _Block(CNNBlockBase):
    def freeze(self) -> _Block:
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else fused_layer(self.shortcut, self.shortcut.norm, x, relu=False)


class BasicStem(_Block):
    """7x7 convolution, norm, ReLU, max pooling [detectron2.modeling.backbone.resnet.BasicStem]."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(norm, in_channels, out_channels, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(fused_layer(self.conv1, self.conv1.norm, x), kernel_size=3, stride=2, padding=1)


class BasicBlock(_Block):
    """Two 3x3 convolutions [detectron2.modeling.backbone.resnet.BasicBlock]."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None if in_channels == out_channels else _conv(norm, in_channels, out_channels, 1, stride)
        self.conv1 = _conv(norm, in_channels, out_channels, 3, stride)
        self.conv2 = _conv(norm, out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = fused_layer(self.conv1, self.conv1.norm, x)
        return fused_layer(self.conv2, self.conv2.norm, out, self._shortcut(x))


class BottleneckBlock(_Block):
    """1x1, 3x3, 1x1 [detectron2.modeling.backbone.resnet.BottleneckBlock]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None if in_channels == out_channels else _conv(norm, in_channels, out_channels, 1, stride)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        width = bottleneck_channels
        self.conv1 = _conv(norm, in_channels, width, 1, stride_1x1)
        self.conv2_offset: nn.Module | None = None
        self.conv2 = _conv(norm, width, width, 3, stride_3x3, dilation=dilation, groups=num_groups)
        self.conv3 = _conv(norm, width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = fused_layer(self.conv1, self.conv1.norm, x)
        out = fused_layer(self.conv2, self.conv2.norm, out, offset=self.conv2_offset)
        return fused_layer(self.conv3, self.conv3.norm, out, self._shortcut(x))


class DeformBottleneckBlock(BottleneckBlock):
    """:class:`BottleneckBlock` with a deformable 3x3; its offsets (and masks) come from ``conv2_offset``, which
    starts at zero [detectron2.modeling.backbone.resnet.DeformBottleneckBlock]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        **options: Any,
    ):
        super().__init__(in_channels, out_channels, **options)
        plain = self.conv2
        make = layers.ModulatedDeformConv if deform_modulated else layers.DeformConv
        geometry = plain.kernel_size, plain.stride, plain.padding, plain.dilation
        self.conv2 = make(plain.in_channels, plain.out_channels, *geometry, plain.groups, deform_num_groups)
        self.conv2.weight = plain.weight
        self.conv2.norm = plain.norm
        channels = (3 if deform_modulated else 2) * 9 * deform_num_groups
        self.conv2_offset = layers.Conv2d(plain.in_channels, channels, *geometry)
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)
        for name in ("conv2", "conv3"):  # behind it, as in detectron2: optimizers number parameters in this order
            self._modules[name] = self._modules.pop(name)


@BACKBONE_REGISTRY.register()
def build_resnet_cuda_backbone(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """[detectron2's build_resnet_backbone]: by ``MODEL.RESNETS.*``, ``MODEL.BACKBONE.FREEZE_AT``, the image's channels.

    Raises:
        ValueError: for an unknown key of ``MODEL.RESNETS``, and for a value that is not allowed.
    """
    settings = cfg.MODEL.RESNETS
    _check(settings)
    depth, norm = settings.DEPTH, settings.NORM
    deformable = flags("", "MODEL.RESNETS.DEFORM_ON_PER_STAGE", list(settings.DEFORM_ON_PER_STAGE), 4)
    positive = {key: integer("", f"MODEL.RESNETS.{key}", settings[key], 1) for key in _POSITIVE}
    in_channels, out_channels = positive["STEM_OUT_CHANNELS"], positive["RES2_OUT_CHANNELS"]
    stem = BasicStem(input_shape.channels, in_channels, norm)
    stages = []
    for index, count in enumerate(ALL_BLOCK_COUNTS[depth]):
        dilation = positive["RES5_DILATION"] if index == 3 else 1
        options = {"stride_per_block": [1 if index == 0 or dilation > 1 else 2] + [1] * (count - 1), "norm": norm}
        block = BasicBlock
        if depth >= 50:
            block = BottleneckBlock
            options |= {
                "bottleneck_channels": positive["NUM_GROUPS"] * positive["WIDTH_PER_GROUP"] * 2**index,
                "num_groups": positive["NUM_GROUPS"],
                "stride_in_1x1": flag("", "MODEL.RESNETS.STRIDE_IN_1X1", settings.STRIDE_IN_1X1),
                "dilation": dilation,
            }
        if deformable[index]:
            block = DeformBottleneckBlock
            options["deform_modulated"] = flag("", "MODEL.RESNETS.DEFORM_MODULATED", settings.DEFORM_MODULATED)
            options["deform_num_groups"] = positive["DEFORM_NUM_GROUPS"]
        stages.append(ResNet.make_stage(block, count, in_channels=in_channels, out_channels=out_channels, **options))
        in_channels, out_channels = out_channels, 2 * out_channels
    freeze_at = integer("", "MODEL.BACKBONE.FREEZE_AT", cfg.MODEL.BACKBONE.FREEZE_AT)
    return ResNet(stem, stages, out_features=list(settings.OUT_FEATURES), freeze_at=freeze_at)


_POSITIVE = (
    *("STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES5_DILATION"),
    "DEFORM_NUM_GROUPS",
)


def _check(settings: Any) -> None:
    for key in sorted(set(settings) - _READ):
        if key not in _NEUTRAL:
            raise ValueError(f"MODEL.RESNETS.{key} is not known; allowed are {', '.join(sorted(_READ))}")
        value = list(settings[key]) if isinstance(settings[key], (tuple, list)) else settings[key]
        if value != _NEUTRAL[key]:
            refuse(f"MODEL.RESNETS.{key}", settings[key], repr(_NEUTRAL[key]))
    if settings.DEPTH not in ALL_BLOCK_COUNTS:
        refuse("MODEL.RESNETS.DEPTH", settings.DEPTH, ", ".join(map(str, ALL_BLOCK_COUNTS)))
    if settings.RES5_DILATION not in (1, 2):
        refuse("MODEL.RESNETS.RES5_DILATION", settings.RES5_DILATION, "1 or 2")
    features = list(settings.OUT_FEATURES)
    if not features or not set(features) <= {"stem", *_STAGES}:
        refuse("MODEL.RESNETS.OUT_FEATURES", features, f"a list of stem, {', '.join(_STAGES)}")
    try:
        _norm(settings.NORM, 32)
    except KeyError:
        refuse("MODEL.RESNETS.NORM", settings.NORM, "one of FrozenBN, BN, SyncBN, GN, LN, ''")
    if settings.DEPTH < 50:
        required = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1, "DEFORM_ON_PER_STAGE": [False] * 4}
        for key, value in required.items():
            given = list(settings[key]) if isinstance(value, list) else settings[key]
            if given != value:
                refuse(f"MODEL.RESNETS.{key}", settings[key], f"{value} for depth {settings.DEPTH}, as in detectron2")


def _fpn(cfg: Any, bottom_up: ResNet, top_block: nn.Module) -> FPN:
    settings = cfg.MODEL.FPN
    if settings.FUSE_TYPE not in ("sum", "avg"):
        refuse("MODEL.FPN.FUSE_TYPE", settings.FUSE_TYPE, "'sum' or 'avg'")
    missing_features = set(settings.IN_FEATURES) - set(bottom_up.output_shape())
    if missing_features or not settings.IN_FEATURES:
        refuse(
            "MODEL.FPN.IN_FEATURES",
            settings.IN_FEATURES,
            f"of MODEL.RESNETS.OUT_FEATURES, {[*bottom_up.output_shape()]}",
        )
    return FPN(bottom_up, settings.IN_FEATURES, settings.OUT_CHANNELS, settings.NORM, top_block, settings.FUSE_TYPE)


@BACKBONE_REGISTRY.register()
def build_resnet_cuda_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """[detectron2's build_resnet_fpn_backbone]: the ResNet and ``MODEL.FPN.*``, with P6 by max pooling."""
    return _fpn(cfg, build_resnet_cuda_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_cuda_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """[detectron2's build_retinanet_resnet_fpn_backbone]: P6 and P7 from C5, which OUT_FEATURES must have."""
    bottom_up = build_resnet_cuda_backbone(cfg, input_shape)
    shapes = bottom_up.output_shape()
    if "res5" not in shapes:
        refuse("MODEL.RESNETS.OUT_FEATURES", list(shapes), "a list with res5, of which P6 is made")
    return _fpn(cfg, bottom_up, LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS))
