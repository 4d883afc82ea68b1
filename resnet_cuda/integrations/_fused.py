"""Convolution, norm, residual sum and ReLU of the integrations' blocks, as :mod:`resnet_cuda.layers.conv_norm_act`.

Two differences, for libraries that use neither this package's FrozenBatchNorm2d nor its DFConv2d: a BatchNorm2d that is
constant in this call also runs fused, and the layer that predicts a deformable convolution's offsets is a separate
module, so that parameters keep the library's names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.layers import ModulatedDeformConv
from resnet_cuda.layers.constant_norm import batch_norm_constants
from resnet_cuda.layers.offset_prediction import split_prediction
from resnet_cuda.layers.overwriting import may_overwrite_result
from resnet_cuda.ops.frozen_bn import frozen_batch_norm


def fused_layer(
    conv: nn.Module,
    norm: nn.Module | None,
    x: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    offset: nn.Module | None = None,
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``; a deformable ``conv`` takes the offsets that ``offset`` predicts from x."""
    out = conv(x) if offset is None else _deformed(conv, offset(x), x)
    constants = None if norm is None else batch_norm_constants(norm)
    if constants is not None:
        # A Tensor subclass may have recorded the result in __torch_function__.
        inplace = type(out) is Tensor and may_overwrite_result(conv)
        return frozen_batch_norm(out, *constants, residual, relu, inplace=inplace)
    if norm is not None:
        out = norm(out)
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


def _deformed(conv: nn.Module, predicted: Tensor, x: Tensor) -> Tensor:
    """Offsets are all channels of ``predicted`` in DCNv1, in v2 the first two thirds; the mask's logits follow."""
    if not isinstance(conv, ModulatedDeformConv):
        return conv(x, predicted)
    offset, mask = split_prediction(predicted, True)
    return conv(x, offset, mask)
