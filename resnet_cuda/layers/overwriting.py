"""Checks whether a result may be overwritten in place: no hook, mode, tracer or patched function may have kept it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._device import DeviceContext

from resnet_cuda import ops
from resnet_cuda.layers.conv import Conv2d
from resnet_cuda.layers.deform_conv import DeformConv, ModulatedDeformConv
from resnet_cuda.layers.df_conv import DFConv2d
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.ops._registration import needs_registered_op, transformed
from resnet_cuda.patched import Originals


class MakesNewResult:
    """A base class of layers that return a new tensor, which only the caller holds and no backward reads."""


# These do, too.
_CONVOLUTIONS = (Conv2d, DeformConv, ModulatedDeformConv)


def may_overwrite_result(layer: nn.Module) -> bool:
    """Whether only the caller can hold the tensor that ``layer`` has just returned, and no backward needs it."""
    if not nobody_records() or is_hooked(layer):
        return False
    if type(layer) is DFConv2d:
        layer = layer.conv
        if is_hooked(layer):
            return False
    known = type(layer) in _CONVOLUTIONS or isinstance(layer, MakesNewResult)
    return known and "_conv_forward" not in layer.__dict__


def nobody_records() -> bool:
    """Whether no mode, tracer, transform or patched function may keep the results of functions.

    Graphs must be functional; vmap may batch only one of the tensors; profilers and recorders patch functions.
    """
    return not (needs_registered_op() or transformed() or _in_function_mode()) and _calls_originals()


def _calls_originals() -> bool:
    """Whether what a layer calls is what its library wrote."""
    return (
        F.conv2d is torch.conv2d
        and ops.deform_conv2d is _DEFORM_CONV2D
        and nn.Conv2d.forward in _FORWARD
        and nn.Conv2d._conv_forward in _CONV_FORWARD
        and nn.Module.__call__ in _CALL
    )


_DEFORM_CONV2D = ops.deform_conv2d
_FORWARD, _CONV_FORWARD = Originals("forward", nn.Conv2d), Originals("_conv_forward", nn.Conv2d)
_CALL = Originals("__call__", nn.Module)


def _in_function_mode() -> bool:
    """Whether a TorchFunctionMode may keep results; ``torch.device(...)``'s only chooses where tensors are made."""
    count = torch._C._len_torch_function_stack()
    return count > 0 and any(type(torch._C._get_function_stack_at(it)) is not DeviceContext for it in range(count))
