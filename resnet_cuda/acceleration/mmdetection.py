"""mmdetection's ResNets and their blocks."""

from __future__ import annotations

from typing import Any

from mmdet.models.backbones import resnet
from torch import Tensor

from resnet_cuda.acceleration.fused import NotFusableError, basic_block, bottleneck, check_relus, run_in_sequence


def _forward(network: Any, x: Tensor) -> tuple[Tensor, ...]:
    stem = (network.stem,) if network.deep_stem else (network.conv1, network.norm1, network.relu)
    x, _ = run_in_sequence((*stem, network.maxpool), x)
    outputs = []
    for index, name in enumerate(network.res_layers):
        x = getattr(network, name)(x)
        if index in network.out_indices:
            outputs.append(x)
    return tuple(outputs)


class ResNet(resnet.ResNet):
    forward = _forward


class ResNetV1d(resnet.ResNetV1d):
    forward = _forward


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_cp and x.requires_grad)
            check_relus(self.relu)
            return basic_block(self, (self.norm1, self.norm2), x)
        except NotFusableError:
            return super().forward(x)


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_plugins or (self.with_cp and x.requires_grad))
            check_relus(self.relu)
            return bottleneck(self, (self.norm1, self.norm2, self.norm3), x)
        except NotFusableError:
            return super().forward(x)


def _check(does_more: bool) -> None:
    """Plugins, or checkpointing, which the library's own forward does."""
    if does_more:
        raise NotFusableError
