"""This package's blocks, stems, bodies and pyramids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.exact import runs_in_order, why_touched
from resnet_cuda.fpn import FPN, LastLevelP6P7
from resnet_cuda.inference import blocks
from resnet_cuda.inference.pattern import (
    Alone,
    Known,
    Pair,
    Pattern,
    become,
    is_nothing,
    may_end_with_relu,
    pairs_in_sequence,
    residual,
    sequential_pairs,
    stem,
)
from resnet_cuda.layers.hooks import is_relu


def _bottleneck(block: Any) -> Pattern:
    convs = {f"conv{index}": getattr(block, f"conv{index}") for index in (1, 2, 3)}
    return _residual_block(block, convs)


def _basic_block(block: Any) -> Pattern:
    return _residual_block(block, {"conv1": block.conv1, "conv2": block.conv2})


def _residual_block(block: Any, convs: dict[str, nn.Module]) -> Pattern:
    pairs = [Pair(conv, getattr(block, f"bn{name[-1]}")) for name, conv in convs.items()]
    relus = [block.relu] if hasattr(block, "relu") else []  # maskrcnn-benchmark's blocks have no module for it
    rewrite = residual(block, convs, [it.norm for it in pairs], "downsample", relus)
    return Pattern([*pairs, *sequential_pairs(block.downsample)], rewrite)


def _stem(module: Any) -> Pattern:
    return Pattern([Pair(module.conv1, module.bn1)], stem(module, module.conv1, [module.bn1]))


def stem_pairs(conv1: nn.Module, bn1: nn.Module) -> list[Pair]:
    """The pairs of a 7x7 convolution or a deep stem and the norm after it."""
    if runs_in_order(conv1) and len(conv1) > 0 and why_touched(conv1) is None:
        return [*pairs_in_sequence(conv1), Pair(conv1[-1], bn1)]
    return [Pair(conv1, bn1)]


def _torchvision_body(body: Any) -> Pattern:
    pairs = stem_pairs(body.conv1, body.bn1)

    def rewrite(alone: Alone) -> bool:
        last, relu = pairs[-1].conv, body.relu
        if not is_nothing(body.bn1) or not may_end_with_relu(last, alone) or not (is_relu(relu) and alone(relu)):
            return False
        blocks.end_with_relu(last)
        become(relu, nn.Identity().eval())
        return True

    return Pattern(pairs, rewrite)


class _FusedPyramid(FPN):
    """maskrcnn-benchmark's, each lateral convolution of which adds the level above."""

    def forward(self, x: list[Tensor]):  # as FPN's
        if torch.jit.is_scripting():
            return self._scripted(x)
        inner = None
        results: list[Tensor] = []
        for level in reversed(self.levels):
            inner = blocks.merge(getattr(self, f"fpn_inner{level}"), x[level - 1], inner)
            results.insert(0, getattr(self, f"fpn_layer{level}")(inner))
        if isinstance(self.top_blocks, LastLevelP6P7):
            results.extend(self.top_blocks(x[-1], results[-1]))
        elif self.top_blocks is not None:
            results.extend(self.top_blocks(results[-1]))
        return tuple(results)


def _pyramid(fpn: Any) -> Pattern:
    inner = [getattr(fpn, f"fpn_inner{level}") for level in fpn.levels]
    outer = [getattr(fpn, f"fpn_layer{level}") for level in fpn.levels]

    def rewrite(_: Alone) -> bool:
        fused = any(blocks.lateral_convolution(it) is not None for it in inner)
        if fused:
            fpn.__class__ = _FusedPyramid
        return fused

    return Pattern([pair for module in (*inner, *outer) for pair in sequential_pairs(module)], rewrite)


def torchvision_pyramid(fpn: Any) -> Pattern:
    """The description of torchvision's FeaturePyramidNetwork or this package's."""

    def rewrite(_: Alone) -> bool:
        fused = any(blocks.lateral_convolution(it) is not None for it in fpn.inner_blocks)
        if fused:
            fpn.__class__ = blocks.FusedPyramid
        return fused

    modules = (*fpn.inner_blocks, *fpn.layer_blocks)
    return Pattern([pair for module in modules for pair in sequential_pairs(module)], rewrite)


KNOWN = (
    Known("resnet_cuda.blocks.Bottleneck", _bottleneck),
    Known("resnet_cuda.torchvision_blocks.BasicBlock", _basic_block),
    Known("resnet_cuda.torchvision_blocks.TorchvisionBottleneck", _bottleneck),
    Known("resnet_cuda.blocks.BaseStem", _stem),
    Known("resnet_cuda.torchvision_body.TorchvisionBody", _torchvision_body),
    Known("resnet_cuda.integrations.timm.ResNetFeatures", _torchvision_body),
    Known("resnet_cuda.fpn.FPN", _pyramid),
    Known("resnet_cuda.fpn.FeaturePyramidNetwork", torchvision_pyramid),
)
