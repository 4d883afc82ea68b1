"""detectron2's FrozenBatchNorm2d, deformable convolutions, stem and ResNet blocks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import batch_norm, deform_conv, wrappers
from detectron2.modeling.backbone import resnet
from torch import Tensor, nn

from resnet_cuda import ops
from resnet_cuda.acceleration.fused import NotFusableError, norm_act, plain_conv, required_constants
from resnet_cuda.layers.constant_norm import FrozenNorm
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.patched import Originals


class FrozenBatchNorm2d(batch_norm.FrozenBatchNorm2d):
    forward = FrozenNorm.forward


class DeformConv(deform_conv.DeformConv):
    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        if x.numel() == 0:
            return super().forward(x, offset)
        return _norm_and_activation(self, _deformed(self, x, offset, None))


class ModulatedDeformConv(deform_conv.ModulatedDeformConv):
    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        if x.numel() == 0:
            return super().forward(x, offset, mask)
        return _norm_and_activation(self, _deformed(self, x, offset, mask))


def _deformed(conv: Any, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    return ops.deform_conv2d(x, offset, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, mask)


def _norm_and_activation(conv: Any, x: Tensor) -> Tensor:
    if conv.norm is not None:
        x = conv.norm(x)
    return x if conv.activation is None else conv.activation(x)


class BasicStem(resnet.BasicStem):
    def forward(self, x: Tensor) -> Tensor:
        try:
            (constants,) = _constants(self.conv1)
        except NotFusableError:
            return super().forward(x)
        out = norm_act(plain_conv(self.conv1, x), constants)
        return F.max_pool2d(out, kernel_size=3, stride=2, padding=1)


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            first, second = _constants(self.conv1, self.conv2)
        except NotFusableError:
            return super().forward(x)
        out = norm_act(plain_conv(self.conv1, x), first)
        return norm_act(plain_conv(self.conv2, out), second, _shortcut(self.shortcut, x))


class BottleneckBlock(resnet.BottleneckBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            first, second, third = _constants(self.conv1, self.conv2, self.conv3)
        except NotFusableError:
            return super().forward(x)
        out = norm_act(plain_conv(self.conv1, x), first)
        out = norm_act(plain_conv(self.conv2, out), second)
        return norm_act(plain_conv(self.conv3, out), third, _shortcut(self.shortcut, x))


class DeformBottleneckBlock(resnet.DeformBottleneckBlock):
    def forward(self, x: Tensor) -> Tensor:
        conv2 = self.conv2
        try:
            first, second, third = _constants(self.conv1, conv2, self.conv3)
        except NotFusableError:
            return super().forward(x)
        out = norm_act(plain_conv(self.conv1, x), first)
        offset, mask = self.conv2_offset(out), None
        if self.deform_modulated:
            x_part, y_part, mask = torch.chunk(offset, 3, dim=1)
            offset, mask = torch.cat((x_part, y_part), dim=1), mask.sigmoid()
        out = norm_act(_deformed(conv2, out, offset, mask), second)
        return norm_act(plain_conv(self.conv3, out), third, _shortcut(self.shortcut, x))


_CONVOLUTIONS = (wrappers.Conv2d, DeformConv, ModulatedDeformConv)
_FORWARDS = Originals("forward", *_CONVOLUTIONS)


def _constants(*convs: Any) -> list[tuple]:
    """Of the norms that these layers would call. Raises NotFusableError where a layer does more, or has hooks."""
    for conv in convs:
        known = type(conv) in _CONVOLUTIONS and type(conv).forward in _FORWARDS
        if not known or is_hooked(conv) or conv.norm is None or conv.activation is not None:
            raise NotFusableError
    return required_constants([conv.norm for conv in convs])


def _shortcut(shortcut: nn.Module | None, x: Tensor) -> Tensor:
    if shortcut is None:
        return x
    try:
        (constants,) = _constants(shortcut)
    except NotFusableError:
        return shortcut(x)
    return norm_act(plain_conv(shortcut, x), constants, relu=False)
