"""mmdetection's ResNet, ResNeXt and V1d backbones with fused norms and this package's deformable convolution.

>>> custom_imports = dict(imports=["resnet_cuda.integrations.mmdetection"])  # registers ResNetCUDA
>>> model = dict(backbone=dict(type="ResNetCUDA"))  # instead of ResNet; all other keys stay
>>> model = dict(backbone=dict(type="ResNetCUDA", groups=32, base_width=4))  # instead of ResNeXt

Arguments and parameter names are mmdetection's, so that its checkpoints load unchanged. A BatchNorm that is constant
(in eval mode, by ``norm_eval``, ``frozen_stages`` or ``model.eval()``, with no gradient for its weight) runs in one
pass with the sum and the ReLU. Needs mmdet, mmengine and mmcv; mmcv-lite suffices for this backbone.

Two differences are visible: a deformable ``conv2`` is called with offsets, which the block predicts by
``conv2.conv_offset``; and the norms have only their names ``bn1`` or ``gn1``, without the alias ``norm1``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.integrations._fused import fused_layer
from resnet_cuda.integrations._peer import missing, refuse
from resnet_cuda.layers import Conv2d, DeformConv, ModulatedDeformConv
from resnet_cuda.stage_specs import ALL_BLOCK_COUNTS

try:
    from mmcv.cnn import build_norm_layer
    from mmdet.registry import MODELS
    from mmengine.model import BaseModule
except ImportError as error:
    raise missing("mmdetection", "mmdet: pip install mmdet mmengine 'mmcv-lite<2.2'", error) from error

_PLAIN_CONVOLUTIONS = (None, {"type": "Conv2d"}, {"type": "Conv"})


class _Block(nn.Module):
    """A basic block (two 3x3) or a bottleneck, by the convolutions that it is given."""

    def __init__(self, convs: Sequence[nn.Module], norm_cfg: dict, downsample: nn.Sequential | None, with_cp: bool):
        super().__init__()
        self.layers: list[tuple[str, str]] = []
        for index, conv in enumerate(convs, 1):
            norm_name, norm = build_norm_layer(norm_cfg, conv.out_channels, postfix=index)
            self.add_module(f"conv{index}", conv)
            self.add_module(norm_name, norm)
            self.layers.append((f"conv{index}", norm_name))
        self.downsample = downsample
        self.with_cp = with_cp
        self.register_load_state_dict_pre_hook(_rename_old_offsets)

    def _compute(self, x: Tensor) -> Tensor:
        out, shortcut = x, x
        if self.downsample is not None:
            *pool, conv, norm = self.downsample
            shortcut = fused_layer(conv, norm, pool[0](x) if pool else x, relu=False)
        for conv_name, norm_name in self.layers:
            conv, norm = getattr(self, conv_name), getattr(self, norm_name)
            last = conv_name == self.layers[-1][0]
            offset = getattr(conv, "conv_offset", None)
            out = fused_layer(conv, norm, out, shortcut if last else None, offset=offset)
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return torch.utils.checkpoint.checkpoint(self._compute, x, use_reentrant=False)
        return self._compute(x)


def _rename_old_offsets(block: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """``conv2_offset``, as mmdetection 1 named it, to ``conv2.conv_offset``."""
    for leaf in ("weight", "bias"):
        old, new = f"{prefix}conv2_offset.{leaf}", f"{prefix}conv2.conv_offset.{leaf}"
        if old in state_dict and new not in state_dict:
            state_dict[new] = state_dict.pop(old)


def _conv3x3(channels: int, out: int, stride: int, dilation: int, groups: int = 1, dcn: dict | None = None):
    geometry = 3, stride, dilation, dilation
    if dcn is None:
        return Conv2d(channels, out, *geometry, groups, bias=False)
    modulated = dcn["type"] == "DCNv2"
    conv = (ModulatedDeformConv if modulated else DeformConv)(channels, out, *geometry, groups, dcn["deform_groups"])
    # A child that its forward does not call, so that this is a plain layer, whose result may be overwritten.
    conv.conv_offset = Conv2d(channels, (3 if modulated else 2) * 9 * dcn["deform_groups"], *geometry)
    nn.init.zeros_(conv.conv_offset.weight)
    nn.init.zeros_(conv.conv_offset.bias)
    return conv


def _checked_dcn(dcn: dict | None) -> dict | None:
    if dcn is None:
        return None
    dcn = dict(dcn)
    if "deformable_groups" in dcn:  # mmcv's older name
        dcn["deform_groups"] = dcn.pop("deformable_groups")
    for key in sorted(set(dcn) - {"type", "deform_groups", "fallback_on_stride"}):
        raise ValueError(f"ResNetCUDA: dcn has {key!r}; allowed are type, deform_groups, fallback_on_stride")
    if dcn.get("type") not in ("DCN", "DCNv2"):
        refuse("ResNetCUDA: dcn['type']", dcn.get("type"), "'DCN' or 'DCNv2'")
    if dcn.get("fallback_on_stride", False) is not False:
        refuse("ResNetCUDA: dcn['fallback_on_stride']", dcn["fallback_on_stride"], "False")
    dcn["deform_groups"] = integer("ResNetCUDA", "dcn['deform_groups']", dcn.get("deform_groups", 1), 1)
    return dcn


def _check_arguments(
    depth: int,
    num_stages: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    out_indices: Sequence[int],
    style: str,
    frozen_stages: int,
    conv_cfg: dict | None,
    plugins: list | None,
) -> None:
    where = "ResNetCUDA"
    if depth not in ALL_BLOCK_COUNTS:
        refuse(f"{where}: depth", depth, ", ".join(map(str, ALL_BLOCK_COUNTS)))
    if plugins is not None:
        refuse(f"{where}: plugins", plugins, "None: there are no plugins; mmdetection's ResNet has them")
    if conv_cfg not in _PLAIN_CONVOLUTIONS:
        refuse(f"{where}: conv_cfg", conv_cfg, "None or dict(type='Conv2d')")
    if style not in ("pytorch", "caffe"):
        refuse(f"{where}: style", style, "'pytorch' or 'caffe'")
    if num_stages > 4 or not len(strides) == len(dilations) == num_stages:
        refuse(f"{where}: num_stages", num_stages, f"1 to 4, as strides {strides} and dilations {dilations} have")
    if not out_indices or not set(out_indices) <= set(range(num_stages)):
        refuse(f"{where}: out_indices", out_indices, f"of 0 to {num_stages - 1}")
    if frozen_stages > num_stages:
        refuse(f"{where}: frozen_stages", frozen_stages, f"-1 to {num_stages}")


def _checked_init_cfg(pretrained: str | None, init_cfg: dict | list | None) -> dict | list:
    """mmengine's initialisation: ``init_cfg``, that of the deprecated ``pretrained``, or mmdetection's default."""
    if pretrained is not None:
        if init_cfg or not isinstance(pretrained, str):
            refuse("ResNetCUDA: pretrained", pretrained, "None or a string, and None beside init_cfg")
        warnings.warn("pretrained is deprecated, use init_cfg=dict(type='Pretrained', ...)", stacklevel=3)
        return {"type": "Pretrained", "checkpoint": pretrained}
    if init_cfg is None:
        norms = {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]}
        return [{"type": "Kaiming", "layer": "Conv2d"}, norms]
    return init_cfg


def _basic_convs(channels: int, out: int, stride: int, dilation: int) -> list[nn.Module]:
    return [_conv3x3(channels, out, stride, dilation), _conv3x3(out, out, 1, 1)]


def _bottleneck_convs(
    channels: int, out: int, stride: int, width: int, style: str, conv2: dict[str, Any]
) -> list[nn.Module]:
    """``conv2``: further arguments of the 3x3."""
    stride_1x1, stride_3x3 = (1, stride) if style == "pytorch" else (stride, 1)
    middle = _conv3x3(width, width, stride_3x3, **conv2)
    first = Conv2d(channels, width, 1, stride_1x1, bias=False)
    return [first, middle, Conv2d(width, out, 1, bias=False)]


def _make_stage(
    count: int,
    channels: int,
    out: int,
    stride: int,
    make_convs: Callable[[int, int, int], list[nn.Module]],
    avg_down: bool,
    norm_cfg: dict,
    with_cp: bool,
) -> nn.Sequential:
    """``count`` blocks of ``make_convs(channels, out, stride)``; the first one strides and changes the channels."""
    blocks = []
    for _ in range(count):
        downsample = None
        if not blocks and (stride != 1 or channels != out):
            downsample = _downsample(channels, out, stride, avg_down, norm_cfg)
        blocks.append(_Block(make_convs(channels, out, stride), norm_cfg, downsample, with_cp))
        channels, stride = out, 1
    return nn.Sequential(*blocks)


def _downsample(channels: int, out: int, stride: int, avg_down: bool, norm_cfg: dict) -> nn.Sequential:
    pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if avg_down else []
    conv = Conv2d(channels, out, 1, 1 if avg_down else stride, bias=False)
    return nn.Sequential(*pool, conv, build_norm_layer(norm_cfg, out)[1])


@MODELS.register_module(name="ResNetCUDA")
class ResNetCUDA(BaseModule):
    """[mmdet.models.ResNet]; ``forward`` (N, C, H, W) gives a tuple of the stages in ``out_indices``.

    Args: those of mmdetection's ResNet, and ``groups``, ``base_width`` of its ResNeXt; its ResNetV1d is
        ``deep_stem=True, avg_down=True``. ``dcn`` is ``dict(type="DCN" or "DCNv2", deform_groups=1)``. Not supported:
        ``plugins``, a ``conv_cfg`` of another layer, ``fallback_on_stride``, DCN in depths 18 and 34.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN", "requires_grad": True},  # noqa: B006
        norm_eval: bool = True,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: list | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        groups: int = 1,
        base_width: int = 4,
    ):
        where = "ResNetCUDA"
        num_stages = integer(where, "num_stages", num_stages, 1)
        frozen_stages = integer(where, "frozen_stages", frozen_stages, -1)
        _check_arguments(depth, num_stages, strides, dilations, out_indices, style, frozen_stages, conv_cfg, plugins)
        dcn = _checked_dcn(dcn)
        deformable = flags(where, "stage_with_dcn", stage_with_dcn, num_stages if dcn else None)
        if depth < 50 and (dcn is not None or groups > 1):
            name, value = ("dcn", dcn) if dcn is not None else ("groups", groups)
            refuse(f"{where}: {name}", value, f"None or 1 for depth {depth}, as in mmdetection")
        self.default_init = pretrained is None and init_cfg is None
        super().__init__(_checked_init_cfg(pretrained, init_cfg))
        self.zero_init_residual = flag(where, "zero_init_residual", zero_init_residual)
        self.norm_eval = flag(where, "norm_eval", norm_eval)
        with_cp = flag(where, "with_cp", with_cp)
        self.deep_stem, self.frozen_stages, self.out_indices = deep_stem, frozen_stages, tuple(out_indices)
        channels = base_channels if stem_channels is None else stem_channels
        self._make_stem(in_channels, channels, norm_cfg)
        self.res_layers: list[str] = []
        for index in range(num_stages):
            planes = base_channels * 2**index
            make_convs: Callable[..., list[nn.Module]] = partial(_basic_convs, dilation=dilations[index])
            out = planes
            if depth >= 50:
                out = 4 * planes
                width = planes if groups == 1 else int(planes * (base_width / base_channels)) * groups
                conv2 = {
                    "dilation": dilations[index],
                    "groups": groups,
                    "dcn": dcn if dcn and deformable[index] else None,
                }
                make_convs = partial(_bottleneck_convs, width=width, style=style, conv2=conv2)
            options = avg_down, norm_cfg, with_cp
            stage = _make_stage(ALL_BLOCK_COUNTS[depth][index], channels, out, strides[index], make_convs, *options)
            self.add_module(f"layer{index + 1}", stage)
            self.res_layers.append(f"layer{index + 1}")
            channels = out
        self.feat_dim = channels
        self._freeze_stages()

    def _make_stem(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        if not self.deep_stem:
            self.conv1 = Conv2d(in_channels, channels, 7, 2, 3, bias=False)
            self.norm1_name, norm = build_norm_layer(norm_cfg, channels, postfix=1)
            self.add_module(self.norm1_name, norm)
        else:
            half, layers = channels // 2, []
            for inputs, outputs, stride in ((in_channels, half, 2), (half, half, 1), (half, channels, 1)):
                norm = build_norm_layer(norm_cfg, outputs)[1]
                layers += [Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU()]
            self.stem = nn.Sequential(*layers)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _stem_layers(self) -> list[tuple[nn.Module, nn.Module]]:
        if self.deep_stem:
            return list(zip(self.stem[::3], self.stem[1::3], strict=True))
        return [(self.conv1, getattr(self, self.norm1_name))]

    def init_weights(self) -> None:
        """mmengine's initialisation; then zeros the predicted offsets and, by ``zero_init_residual``, the residuals."""
        fresh = self.default_init and not self.is_init
        super().init_weights()
        for block in self.modules() if fresh else ():
            if isinstance(block, _Block):
                offset = getattr(block.conv2, "conv_offset", None)
                if offset is not None:
                    nn.init.zeros_(offset.weight)
                if self.zero_init_residual:
                    nn.init.zeros_(getattr(block, block.layers[-1][1]).weight)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [layer for pair in self._stem_layers() for layer in pair]
        frozen += [getattr(self, f"layer{stage}") for stage in range(1, self.frozen_stages + 1)]
        for module in frozen:
            module.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for conv, norm in self._stem_layers():
            x = fused_layer(conv, norm, x)
        x = self.maxpool(x)
        outputs = []
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> ResNetCUDA:
        """Sets training mode, except for frozen stages and, with ``norm_eval``, every BatchNorm."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
