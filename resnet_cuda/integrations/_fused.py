"""Convolution, norm, residual sum and ReLU of the integrations' blocks, as :mod:`resnet_cuda.layers.conv_norm_act`.

Two things are added, for libraries that have no FrozenBatchNorm2d of ours and no DFConv2d: a BatchNorm2d that is a
constant in this call is computed by the same fused pass, and the layer that predicts a deformable convolution's
offsets is another module, so that parameters keep the library's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.layers import FrozenBatchNorm2d, ModulatedDeformConv
from resnet_cuda.layers.conv_norm_act import _may_overwrite_result
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.ops._registration import transformed
from resnet_cuda.ops.frozen_bn import frozen_batch_norm

_BATCH_NORMS = (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)


def conv_norm_act(
    conv: nn.Module,
    norm: nn.Module | None,
    x: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    offset: nn.Module | None = None,
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``; a deformable ``conv`` takes what the module ``offset`` predicts from x."""
    out = conv(x) if offset is None else _deformed(conv, offset(x), x)
    constants = None if norm is None else _constants(norm)
    if constants is not None:
        # A Tensor subclass may have recorded the result in __torch_function__.
        return frozen_batch_norm(
            out, *constants, residual, relu, inplace=type(out) is Tensor and _may_overwrite_result(conv)
        )
    if norm is not None:
        out = norm(out)
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


def _deformed(conv: nn.Module, predicted: Tensor, x: Tensor) -> Tensor:
    """Offsets are all channels of ``predicted`` in DCNv1, in v2 the first two thirds; the mask's logits follow."""
    if not isinstance(conv, ModulatedDeformConv):
        return conv(x, predicted)
    offsets = predicted.shape[1] // 3 * 2
    return conv(x, predicted[:, :offsets], predicted[:, offsets:].sigmoid())


def _constants(norm: nn.Module) -> tuple | None:
    """Weight, bias, mean, variance and eps of a norm that is ``x * scale + shift`` in this call, else None."""
    forward = type(norm).forward
    if is_hooked(norm):
        return None
    if forward is FrozenBatchNorm2d.forward:
        return norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps
    if forward not in _BATCH_NORMS or norm.training or norm.running_mean is None or not norm.affine or transformed():
        return None
    if torch.is_grad_enabled() and (norm.weight.requires_grad or norm.bias.requires_grad):
        return None
    return norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var, norm.eps
