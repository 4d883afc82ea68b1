"""torchvision's FrozenBatchNorm2d, DeformConv2d and ResNet blocks."""

from __future__ import annotations

from torch import Tensor
from torchvision.models import resnet
from torchvision.ops import deform_conv, misc

from resnet_cuda import ops
from resnet_cuda.acceleration.fused import (
    FrozenNorm,
    NotFusableError,
    check_relus,
    constants_of,
    conv_norm_act,
    shortcut_of,
)


class FrozenBatchNorm2d(misc.FrozenBatchNorm2d):
    forward = FrozenNorm.forward


class DeformConv2d(deform_conv.DeformConv2d):
    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops.deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            check_relus(self.relu)
            first, second = constants_of((self.bn1, self.bn2))
        except NotFusableError:
            return super().forward(x)
        out = conv_norm_act(self.conv1, first, x)
        return conv_norm_act(self.conv2, second, out, shortcut_of(self.downsample, x))


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            check_relus(self.relu)
            first, second, third = constants_of((self.bn1, self.bn2, self.bn3))
        except NotFusableError:
            return super().forward(x)
        out = conv_norm_act(self.conv1, first, x)
        out = conv_norm_act(self.conv2, second, out)
        return conv_norm_act(self.conv3, third, out, shortcut_of(self.downsample, x))
