"""torchvision's FrozenBatchNorm2d, DeformConv2d, Conv2dNormActivation, ResNets and their blocks and bodies."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from torchvision.models import _utils, resnet
from torchvision.ops import deform_conv, misc

from resnet_cuda import ops
from resnet_cuda.acceleration.fused import NotFusableError, basic_block, bottleneck, check_relus, run_in_sequence
from resnet_cuda.layers.constant_norm import FrozenNorm


class FrozenBatchNorm2d(misc.FrozenBatchNorm2d):
    forward = FrozenNorm.forward


class DeformConv2d(deform_conv.DeformConv2d):
    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops.deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)


class Conv2dNormActivation(misc.Conv2dNormActivation):
    def forward(self, input: Tensor) -> Tensor:
        return run_in_sequence(self, input)[0]


class ResNet(resnet.ResNet):
    def _forward_impl(self, x: Tensor) -> Tensor:
        body = (self.conv1, self.bn1, self.relu, self.maxpool, self.layer1, self.layer2, self.layer3, self.layer4)
        x, _ = run_in_sequence((*body, self.avgpool), x)
        return self.fc(torch.flatten(x, 1))


class IntermediateLayerGetter(_utils.IntermediateLayerGetter):
    """The body of torchvision's detectors: runs modules in sequence and returns the results of some of them."""

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        kept = {place: self.return_layers[name] for place, name in enumerate(self) if name in self.return_layers}
        _, results = run_in_sequence(self.values(), x, kept)
        return OrderedDict((name, results[place]) for place, name in kept.items())


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
