"""torchvision's FrozenBatchNorm2d, DeformConv2d and ResNet blocks."""

from __future__ import annotations

from torch import Tensor
from torchvision.models import resnet
from torchvision.ops import deform_conv, misc

from resnet_cuda import ops
from resnet_cuda.acceleration.fused import (
    FrozenNorm,
    NotFusableError,
    basic_block,
    bottleneck,
    check_relus,
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
            return basic_block(self, (self.bn1, self.bn2), x)
        except NotFusableError:
            return super().forward(x)


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            check_relus(self.relu)
            return bottleneck(self, (self.bn1, self.bn2, self.bn3), x)
        except NotFusableError:
            return super().forward(x)
