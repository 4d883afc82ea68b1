"""The ResNet body and its RoI head, with the names of [maskrcnn_benchmark.modeling.backbone.resnet].

Blocks and stems are in :mod:`resnet_cuda.blocks`, the tables of stages in :mod:`resnet_cuda.stage_specs`; both are
importable from here. Users may add to the registries ``_STAGE_SPECS``, ``_TRANSFORMATION_MODULES``, ``_STEM_MODULES``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda import norm_statistics_warning
from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.blocks import (
    _STEM_MODULES,
    _TRANSFORMATION_MODULES,
    BaseStem,
    Bottleneck,
    BottleneckWithFixedBatchNorm,
    BottleneckWithGN,
    StemWithFixedBatchNorm,
    StemWithGN,
    norm_of_config,
    stem_in_channels,
)
from resnet_cuda.meta_copy import meta_copy, stride_of
from resnet_cuda.output_shape import HasOutputShape, Level
from resnet_cuda.stage_specs import (
    _STAGE_SPECS,
    DilatedStageSpec,
    ResNet50FPNStagesTo5,
    ResNet50StagesTo4,
    ResNet50StagesTo5,
    ResNet101FPNStagesTo5,
    ResNet101StagesTo4,
    ResNet101StagesTo5,
    ResNet152FPNStagesTo5,
    StageSpec,
)

__all__ = [
    "_STAGE_SPECS",
    "_STEM_MODULES",
    "_TRANSFORMATION_MODULES",
    "BaseStem",
    "Bottleneck",
    "BottleneckWithFixedBatchNorm",
    "BottleneckWithGN",
    "DilatedStageSpec",
    "ResNet",
    "ResNet50FPNStagesTo5",
    "ResNet50StagesTo4",
    "ResNet50StagesTo5",
    "ResNet101FPNStagesTo5",
    "ResNet101StagesTo4",
    "ResNet101StagesTo5",
    "ResNet152FPNStagesTo5",
    "ResNetHead",
    "StageSpec",
    "StemWithFixedBatchNorm",
    "StemWithGN",
]


def _make_stage(
    transformation_module: Callable[..., nn.Module],
    in_channels: int,
    bottleneck_channels: int,
    out_channels: int,
    block_count: int,
    num_groups: int,
    stride_in_1x1: bool,
    first_stride: int,
    dilation: int = 1,
    dcn_config: dict[str, Any] | None = None,
) -> nn.Sequential:
    """``block_count`` blocks; the first one strides and changes the number of channels."""
    blocks = (
        transformation_module(
            in_channels if index == 0 else out_channels,
            bottleneck_channels,
            out_channels,
            num_groups,
            stride_in_1x1,
            first_stride if index == 0 else 1,
            dilation=dilation,
            dcn_config=dcn_config or {},
        )
        for index in range(block_count)
    )
    return nn.Sequential(*blocks)


def _warn_of_unread_dilation(cfg: Any, stage_specs: Sequence[StageSpec]) -> None:
    """``RES5_DILATION`` is of the RoI head behind C4; whoever knows detectron2's key expects a dilated C5 of a body."""
    asked = getattr(cfg.MODEL.RESNETS, "RES5_DILATION", 1)
    built = [getattr(spec, "dilation", 1) for spec in stage_specs if spec.index == 4]
    if built and asked not in (1, *built):
        warnings.warn(
            f"MODEL.RESNETS.RES5_DILATION is {asked}, which no stage of {cfg.MODEL.BACKBONE.CONV_BODY} reads: it is of "
            "the RoI head behind C4, as in maskrcnn-benchmark. A body whose C5 is dilated by 2 is CONV_BODY R-50-DC5",
            stacklevel=3,
        )


class ResNet(HasOutputShape, nn.Module):
    """Stem and stages [maskrcnn_benchmark.modeling.backbone.resnet.ResNet].

    ``forward`` (N, C, H, W) gives a list of the outputs (N, channels, h, w) of the stages marked in the stage table.
    ``output_shape()`` names them "res2".."res5". A stage of a DilatedStageSpec keeps the size of its input.

    Args:
        cfg: any node with the attributes of :func:`resnet_cuda.config.get_cfg` (a yacs CfgNode, a SimpleNamespace).
            ``MODEL.RESNETS.STEM_IN_CHANNELS``, C, which maskrcnn-benchmark does not have, defaults to 3.

    Raises:
        KeyError: for an unknown body, block or stem, listing the known ones.
        ValueError: for a value that cannot be built.
    """

    def __init__(self, cfg: Any):
        super().__init__()
        settings = cfg.MODEL.RESNETS
        stage_specs: Sequence[StageSpec] = _STAGE_SPECS[cfg.MODEL.BACKBONE.CONV_BODY]
        block = _with_norm_of(cfg, _TRANSFORMATION_MODULES[settings.TRANS_FUNC])
        self.stem = _STEM_MODULES[settings.STEM_FUNC](cfg)
        last_stage = max(spec.index for spec in stage_specs)
        deformable = flags("", "MODEL.RESNETS.STAGE_WITH_DCN", settings.STAGE_WITH_DCN)
        modulated = flag("", "MODEL.RESNETS.WITH_MODULATED_DCN", settings.WITH_MODULATED_DCN)
        stride_in_1x1 = flag("", "MODEL.RESNETS.STRIDE_IN_1X1", settings.STRIDE_IN_1X1)
        num_groups = _positive(settings, "NUM_GROUPS")
        res2_out_channels = _positive(settings, "RES2_OUT_CHANNELS")
        width_per_group = _positive(settings, "WIDTH_PER_GROUP")
        deformable_groups = _positive(settings, "DEFORMABLE_GROUPS")
        if len(deformable) < last_stage:
            raise ValueError(
                f"MODEL.RESNETS.STAGE_WITH_DCN is {settings.STAGE_WITH_DCN!r}; it must have an entry for each of "
                f"{last_stage} stages"
            )
        _warn_of_unread_dilation(cfg, stage_specs)
        self.in_channels = stem_in_channels(cfg)
        in_channels = _positive(settings, "STEM_OUT_CHANNELS")
        self.stages: list[str] = []
        self.return_features: dict[str, bool] = {}
        self.stage_channels: dict[str, int] = {}
        self.stage_strides: dict[str, int] = {}  # from the stem's result
        stride = 1
        for spec in stage_specs:
            name = f"layer{spec.index}"
            factor = 2 ** (spec.index - 1)
            out_channels = res2_out_channels * factor
            dilation = integer("StageSpec", "dilation", getattr(spec, "dilation", 1), 1)
            first_stride = 2 if spec.index > 1 and dilation == 1 else 1
            stride *= first_stride
            stage = _make_stage(
                block,
                in_channels,
                num_groups * width_per_group * factor,
                out_channels,
                spec.block_count,
                num_groups,
                stride_in_1x1,
                first_stride,
                dilation,
                dcn_config={
                    "stage_with_dcn": deformable[spec.index - 1],
                    "with_modulated_dcn": modulated,
                    "deformable_groups": deformable_groups,
                },
            )
            in_channels = out_channels
            self.add_module(name, stage)
            self.stages.append(name)
            self.return_features[name] = flag("StageSpec", "return_features", spec.return_features)
            self.stage_channels[name] = out_channels
            self.stage_strides[name] = stride
        self.out_channels = in_channels
        name = "MODEL.BACKBONE.FREEZE_CONV_BODY_AT"
        self._freeze_backbone(integer("", name, cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT))
        norm_statistics_warning.warn_at_first_training_step(self)

    def _freeze_backbone(self, freeze_at: int) -> None:
        """Freezes the stem and stages 1 to ``freeze_at - 1``; nothing where ``freeze_at`` is not positive."""
        if freeze_at > len(self.stages) + 1:
            raise ValueError(
                f"MODEL.BACKBONE.FREEZE_CONV_BODY_AT is {freeze_at}; it must be at most {len(self.stages) + 1}, "
                "the stem and all stages"
            )
        for index in range(max(freeze_at, 0)):
            module = self.stem if index == 0 else getattr(self, f"layer{index}")
            for parameter in module.parameters():
                parameter.requires_grad = False

    def levels(self) -> list[Level]:
        stem = self._stem_stride()
        return [
            Level(f"res{int(name.removeprefix('layer')) + 1}", self.stage_channels[name], stem * stride, name)
            for name, stride in self.stage_strides.items()
            if self.return_features[name]
        ]

    def _stem_stride(self) -> int:
        """4; that of a stem of the user's is its attribute ``stride``, or measured."""
        if type(self.stem) in (StemWithFixedBatchNorm, StemWithGN):
            return 4
        if hasattr(self.stem, "stride"):
            return integer(type(self.stem).__name__, "stride", self.stem.stride, 1)
        size, dtype = 1024, next((it.dtype for it in self.stem.parameters()), torch.float32)
        with torch.no_grad():
            x = torch.empty(1, self.in_channels, size, size, device="meta", dtype=dtype)
            return stride_of(size, meta_copy(self.stem)(x))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        x = self.stem(x)
        if torch.jit.is_scripting():
            for name, stage in self.named_children():
                if name in self.stages:
                    x = stage(x)
                    if self.return_features[name]:
                        outputs.append(x)
            return outputs
        for name in self.stages:
            x = getattr(self, name)(x)
            if self.return_features[name]:
                outputs.append(x)
        return outputs


class ResNetHead(nn.Module):
    """Stages on RoI features, as the C4 models' C5 head [maskrcnn_benchmark.modeling.backbone.resnet.ResNetHead].

    ``forward`` (R, C, h, w) gives (R, out_channels, h', w').

    Args:
        block_module: a name in ``_TRANSFORMATION_MODULES``.
        stages: StageSpecs; a DilatedStageSpec's dilation, if greater than 1, overrides ``dilation``.
        num_groups, width_per_group, stride_in_1x1, res2_out_channels: as in the body.
        stride_init: stride of the first stage; None for the body's (1 for C2, else 2). Dilated blocks ignore it.
        dilation: of every block's 3x3 (``MODEL.RESNETS.RES5_DILATION``).
        dcn_config: ``stage_with_dcn``, ``with_modulated_dcn``, ``deformable_groups``.

    Raises:
        KeyError: for an unknown block, listing the known ones.
        ValueError: without stages, and for a number that is out of range.
    """

    def __init__(
        self,
        block_module: str,
        stages: Sequence[StageSpec],
        num_groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = True,
        stride_init: int | None = None,
        res2_out_channels: int = 256,
        dilation: int = 1,
        dcn_config: dict[str, Any] | None = None,
    ):
        super().__init__()
        if not stages:
            raise ValueError("ResNetHead: stages is empty; it must have at least one StageSpec")
        block = _TRANSFORMATION_MODULES[block_module]
        num_groups = integer("ResNetHead", "num_groups", num_groups, 1)
        width_per_group = integer("ResNetHead", "width_per_group", width_per_group, 1)
        res2_out_channels = integer("ResNetHead", "res2_out_channels", res2_out_channels, 1)
        dilation = integer("ResNetHead", "dilation", dilation, 1)
        if stride_init is not None:
            stride_init = integer("ResNetHead", "stride_init", stride_init, 0)  # 0 is None, as upstream
        self.stages: list[str] = []
        self.out_channels = 0
        for position, spec in enumerate(stages):
            name = f"layer{spec.index}"
            factor = 2 ** (spec.index - 1)
            out_channels = res2_out_channels * factor
            stride = 2 if spec.index > 1 else 1
            if position == 0 and stride_init:
                stride = stride_init
            own_dilation = integer("StageSpec", "dilation", getattr(spec, "dilation", 1), 1)
            stage = _make_stage(
                block,
                # The head's first stage reads the body's last one, which has half as many channels.
                self.out_channels or out_channels // 2,
                num_groups * width_per_group * factor,
                out_channels,
                spec.block_count,
                num_groups,
                stride_in_1x1,
                first_stride=stride,
                dilation=own_dilation if own_dilation > 1 else dilation,
                dcn_config=dcn_config,
            )
            self.add_module(name, stage)
            self.stages.append(name)
            self.out_channels = out_channels
        norm_statistics_warning.warn_at_first_training_step(self)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            for name, stage in self.named_children():
                if name in self.stages:
                    x = stage(x)
            return x
        for name in self.stages:
            x = getattr(self, name)(x)
        return x


def _positive(settings: Any, key: str) -> int:
    return integer("", f"MODEL.RESNETS.{key}", getattr(settings, key), 1)


def _with_norm_of(cfg: Any, block: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``block``; a BottleneckWithGN with the configuration's group sizes, which users' blocks have no argument for."""
    if isinstance(block, type) and issubclass(block, BottleneckWithGN):
        return partial(block, norm_func=norm_of_config(cfg))
    return block
