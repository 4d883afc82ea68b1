"""Convolution, norm, residual sum and ReLU: fused and in place where no hook or mode could observe the difference."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d
from resnet_cuda.layers.fused_nodes import record_norm
from resnet_cuda.layers.hooks import is_hooked, is_relu, runs_only
from resnet_cuda.layers.overwriting import may_overwrite_result


def conv_norm_act(
    conv: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``.

    With a FrozenBatchNorm2d, norm, sum and ReLU are one pass over the convolution's result, in place. They are not
    fused if ``norm`` has hooks, which must see the norm's own result. They are not in place if something else may hold
    the convolution's result: a hook on ``conv``, a ``conv`` of a class other than Conv2d, DeformConv,
    ModulatedDeformConv and DFConv2d, a function or dispatch mode.

    Args:
        conv, norm: any modules.
        x: (N, C, H, W), the input of ``conv``.
        residual: shape and dtype of ``conv``'s result, or None.
        relu: whether to clamp at 0.

    Returns:
        (N, O, Ho, Wo), the shape of ``conv``'s result, and with a FrozenBatchNorm2d its dtype.

    Raises:
        ValueError, RuntimeError: with a FrozenBatchNorm2d as its forward; else what the modules raise.
    """
    out = conv(x)
    if type(norm).forward is FrozenBatchNorm2d.forward and not is_hooked(norm):
        if type(out) is Tensor:
            return norm(out, residual=residual, relu=relu, inplace=may_overwrite_result(conv))
        if isinstance(out, Proxy):  # torch.fx
            return record_norm(norm, out, residual, relu)
        # A Tensor subclass may have recorded the result in __torch_function__.
        return norm(out, residual=residual, relu=relu)
    out = norm(out)
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


def conv_norm_relu(
    conv: nn.Module, norm: nn.Module, relu: nn.Module, x: Tensor, residual: Tensor | None = None
) -> Tensor:
    """``relu(norm(conv(x)) + residual)`` for a module ``relu``, which is called if it has hooks or is no ReLU; see
    :func:`conv_norm_act`."""
    fused = is_relu(relu)
    out = conv_norm_act(conv, norm, x, residual, fused)
    return out if fused else relu(out)


def conv_norm(layers: nn.Module, x: Tensor) -> Tensor:
    """``layers(x)`` for a Sequential of convolution and norm, optionally after a pooling layer; runs the last two by
    :func:`conv_norm_act`."""
    if runs_only(layers, nn.Sequential) and 2 <= len(layers) <= 3:
        *before, conv, norm = layers
        for module in before:
            x = module(x)
        return conv_norm_act(conv, norm, x, relu=False)
    return layers(x)
