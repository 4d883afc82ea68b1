"""Convolution, norm, residual sum and ReLU: fused and in place where no hook or mode could observe the difference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.utils._device import DeviceContext

from resnet_cuda import ops
from resnet_cuda.layers.conv import Conv2d
from resnet_cuda.layers.deform_conv import DeformConv, ModulatedDeformConv
from resnet_cuda.layers.df_conv import DFConv2d
from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d
from resnet_cuda.layers.fused_nodes import record_norm
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.ops._registration import needs_registered_op, transformed

# Each returns a new tensor that its backward does not read, so that the norm may overwrite it.
_CONVOLUTIONS = (Conv2d, DeformConv, ModulatedDeformConv)


def conv_norm_act(
    conv: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``.

    A FrozenBatchNorm2d does norm, sum and ReLU in one pass over the convolution's result, in place. It is not fused
    where ``norm`` has hooks, which must see the norm's own result, and not in place where something else may hold the
    convolution's result: a hook on ``conv``, a module of another class in its place, a function or dispatch mode.
    """
    out = conv(x)
    if type(norm).forward is FrozenBatchNorm2d.forward and not is_hooked(norm):
        if type(out) is Tensor:
            return norm(out, residual=residual, relu=relu, inplace=_may_overwrite_result(conv))
        if isinstance(out, Proxy):  # torch.fx
            return record_norm(norm, out, residual, relu)
        # A Tensor subclass may have recorded the result in __torch_function__.
        return norm(out, residual=residual, relu=relu)
    out = norm(out)
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


def conv_norm(layers: nn.Module, x: Tensor) -> Tensor:
    """``layers(x)``, in which the last two modules of a Sequential of two or three run as :func:`conv_norm_act`:
    convolution and norm, perhaps with pooling before them."""
    if type(layers) is nn.Sequential and 2 <= len(layers) <= 3 and not is_hooked(layers):
        *before, conv, norm = layers
        for module in before:
            x = module(x)
        return conv_norm_act(conv, norm, x, relu=False)
    return layers(x)


def _may_overwrite_result(conv: nn.Module) -> bool:
    """Whether only the caller can hold the tensor that ``conv`` has just returned."""
    if needs_registered_op() or transformed():  # graphs are functional; vmap may batch only one of the tensors
        return False
    if is_hooked(conv):
        return False
    if type(conv) is DFConv2d:
        conv = conv.conv
        if is_hooked(conv):
            return False
    return type(conv) in _CONVOLUTIONS and not _is_patched(conv) and not _in_function_mode()


def _is_patched(conv: nn.Module) -> bool:
    """Whether a function that the result passes through has been replaced, as profilers and recorders do."""
    return _functions() != _FUNCTIONS or "_conv_forward" in conv.__dict__


def _functions() -> tuple[object, ...]:
    return F.conv2d, nn.Conv2d.forward, nn.Conv2d._conv_forward, nn.Module.__call__, ops.deform_conv2d


_FUNCTIONS = _functions()


def _in_function_mode() -> bool:
    """Whether a TorchFunctionMode may keep results; ``torch.device(...)``'s only chooses where tensors are made."""
    count = torch._C._len_torch_function_stack()
    return count > 0 and any(type(torch._C._get_function_stack_at(it)) is not DeviceContext for it in range(count))
