"""mmcv's deformable convolutions; with this package they do not need mmcv's compiled part."""

from __future__ import annotations

from typing import Any

from mmcv.ops import deform_conv, modulated_deform_conv
from torch import Tensor

from resnet_cuda import ops
from resnet_cuda.layers.offset_prediction import split_prediction
from resnet_cuda.layers.overwriting import MakesNewResult


def _deformed(conv: Any, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
    bias = getattr(conv, "bias", None)  # v1 has none
    return ops.deform_conv2d(x, offset, conv.weight, bias, conv.stride, conv.padding, conv.dilation, mask)


def _smaller_than_kernel(conv: Any, x: Tensor) -> bool:
    """mmcv pads such inputs."""
    return x.shape[2] < conv.kernel_size[0] or x.shape[3] < conv.kernel_size[1]


class DeformConv2d(deform_conv.DeformConv2d):
    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return super().forward(x, offset) if _smaller_than_kernel(self, x) else _deformed(self, x, offset)


class DeformConv2dPack(deform_conv.DeformConv2dPack, MakesNewResult):
    def forward(self, x: Tensor) -> Tensor:
        return _deformed(self, x, self.conv_offset(x))


class ModulatedDeformConv2d(modulated_deform_conv.ModulatedDeformConv2d):
    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return _deformed(self, x, offset, mask)


class ModulatedDeformConv2dPack(modulated_deform_conv.ModulatedDeformConv2dPack, MakesNewResult):
    def forward(self, x: Tensor) -> Tensor:
        return _deformed(self, x, *split_prediction(self.conv_offset(x), modulated=True))
