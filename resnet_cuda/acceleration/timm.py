"""timm's FrozenBatchNormAct2d, ResNets, their blocks and feature extractors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from timm.layers import norm_act
from timm.models import _features, resnet
from torch import Tensor, nn

from resnet_cuda.acceleration.fused import NotFusableError, basic_block, bottleneck, check_relus, run_in_sequence
from resnet_cuda.layers.hooks import is_relu, runs_only
from resnet_cuda.ops.frozen_bn import frozen_batch_norm


class FrozenBatchNormAct2d(norm_act.FrozenBatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        relu = is_relu(self.act)
        if not _does_nothing(self.drop) or not (relu or _does_nothing(self.act)):
            return super().forward(x)
        norm: Any = self
        constants = norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps
        return frozen_batch_norm(x, *constants, relu=relu)


class ResNet(resnet.ResNet):
    def forward_features(self, x: Tensor) -> Tensor:
        network: Any = self
        if network.grad_checkpointing:
            return super().forward_features(x)
        names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
        return run_in_sequence((getattr(network, name) for name in names), x)[0]


def _collect(extractor: Any, x: Tensor) -> dict[str, Tensor]:
    if extractor.grad_checkpointing:
        return _features.FeatureDictNet._collect(extractor, x)
    returned = extractor.return_layers
    kept = {place: returned[name] for place, name in enumerate(extractor) if name in returned}
    _, results = run_in_sequence(extractor.values(), x, kept)
    for place, result in results.items():
        if isinstance(result, (tuple, list)):
            results[place] = torch.cat(result, 1) if extractor.concat else result[0]
    return OrderedDict((name, results[place]) for place, name in kept.items())


class FeatureDictNet(_features.FeatureDictNet):
    _collect = _collect


class FeatureListNet(_features.FeatureListNet):
    _collect = _collect


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.drop_block, self.aa, self.se, self.drop_path)
            check_relus(self.act1, self.act2)
            return basic_block(self, (self.bn1, self.bn2), x)
        except NotFusableError:
            return super().forward(x)


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.drop_block, self.aa, self.se, self.drop_path)
            check_relus(self.act1, self.act2, self.act3)
            return bottleneck(self, (self.bn1, self.bn2, self.bn3), x)
        except NotFusableError:
            return super().forward(x)


def _check(*modules: nn.Module | None) -> None:
    if not all(map(_does_nothing, modules)):
        raise NotFusableError


def _does_nothing(module: nn.Module | None) -> bool:
    return module is None or runs_only(module, nn.Identity)
