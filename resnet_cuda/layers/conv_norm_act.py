"""A convolution, its norm, residual sum and ReLU: fused where nobody watches the modules in between."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as module_globals
from torch.utils._device import DeviceContext

from resnet_cuda import ops
from resnet_cuda.layers.conv import Conv2d
from resnet_cuda.layers.deform_conv import DeformConv, ModulatedDeformConv
from resnet_cuda.layers.df_conv import DFConv2d
from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d
from resnet_cuda.ops._registration import needs_registered_op, transformed

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in _HOOKS)
# Each gives a tensor of its own that its backward does not need.
_CONVOLUTIONS = (Conv2d, nn.Conv2d, DeformConv, ModulatedDeformConv)


def conv_norm_act(
    conv: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``.

    A FrozenBatchNorm2d does norm, sum and ReLU in one pass that overwrites the convolution's result. Only where nobody
    can tell: a hook on ``norm`` is shown the norm alone, and what a hook on ``conv``, a module of another class in its
    place or a dispatch mode may have kept is not overwritten.
    """
    out = conv(x)
    if type(norm).forward is FrozenBatchNorm2d.forward and not is_watched(norm):
        # A subclass of Tensor may have shown its results to whoever wrote it.
        return norm(out, residual=residual, relu=relu, inplace=type(out) is Tensor and _is_ours_alone(conv))
    out = norm(out)
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


def is_watched(module: nn.Module) -> bool:
    """Whether calling ``module`` runs more than its class's forward: hooks, global ones too, or a forward set on it."""
    own = module.__dict__
    for name in _HOOKS:
        if own.get(name):
            return True
    for name in _GLOBAL_HOOKS:
        if getattr(module_globals, name):
            return True
    return "forward" in own


def _is_ours_alone(conv: nn.Module) -> bool:
    """Whether nobody but the caller can hold the tensor that ``conv`` has just returned."""
    if needs_registered_op() or transformed():  # graphs are functional, and vmap may batch one tensor and not the other
        return False
    if is_watched(conv):
        return False
    if type(conv) is DFConv2d:
        conv = conv.conv
        if is_watched(conv):
            return False
    return type(conv) in _CONVOLUTIONS and not _is_patched(conv) and not _a_function_mode_watches()


def _is_patched(conv: nn.Module) -> bool:
    """Whether somebody has replaced one of the functions that the result passes through, as recorders do."""
    return _functions() != _FUNCTIONS or "_conv_forward" in conv.__dict__


def _functions() -> tuple[object, ...]:
    return F.conv2d, nn.Conv2d.forward, nn.Conv2d._conv_forward, nn.Module.__call__, ops.deform_conv2d


_FUNCTIONS = _functions()


def _a_function_mode_watches() -> bool:
    """Such a mode sees each result and may keep it; that of ``torch.device`` only says where tensors are made."""
    count = torch._C._len_torch_function_stack()
    return count > 0 and any(type(torch._C._get_function_stack_at(it)) is not DeviceContext for it in range(count))
