"""mmcv's ConvModule."""

from __future__ import annotations

from typing import Any

from resnet_cuda.inference import blocks
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.norms import is_norm
from resnet_cuda.inference.pattern import Alone, Known, Pair, Pattern, is_nothing, may_end_with_relu
from resnet_cuda.layers.hooks import is_relu


def _conv_module(module: Any) -> Pattern:
    if module.order != ("conv", "norm", "act") or not module.with_norm or not is_norm(module.norm):
        return Pattern()

    def rewrite(alone: Alone) -> bool:
        if not is_nothing(module.norm) or not may_end_with_relu(module.conv, alone):
            return False
        from resnet_cuda.inference.mmcv_conv_module import FusedConvModule  # which imports mmcv

        relu = module.with_activation and is_relu(module.activate) and type(module.conv) is FoldedConv2d
        if relu:
            blocks.end_with_relu(module.conv)
        module.relu_in_conv = relu
        module.__class__ = FusedConvModule
        return True

    return Pattern([Pair(module.conv, module.norm)], rewrite)


KNOWN = (Known("mmcv.cnn.bricks.conv_module.ConvModule", _conv_module, ("forward", "norm")),)
