"""Norm, residual sum and ReLU in one pass over a convolution's result, for blocks of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.exact import runs_as
from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.layers.conv_norm_act import _FUNCTIONS, _functions, _in_function_mode
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.ops._registration import needs_registered_op, transformed
from resnet_cuda.ops.frozen_bn import frozen_batch_norm

Constants = tuple[Tensor, Tensor, Tensor, Tensor, float]  # weight, bias, mean, variance, eps
_BATCH_NORMS = (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)


class NotFusableError(Exception):
    """In this call the library's own forward must run."""


class MakesNewResult:
    """A layer of this folder whose result only its caller has."""


class FrozenNorm:
    """The forward of a library's frozen norm with the buffers weight, bias, running_mean and running_var."""

    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    eps: Any

    def forward(self, x: Tensor) -> Tensor:
        return frozen_batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)


def constants_of(norms: Sequence[nn.Module]) -> list[Constants]:
    """Weight, bias, mean, variance and eps of each. Raises NotFusableError where one has hooks or is no constant."""
    found = [_constants(norm) for norm in norms]
    if any(it is None for it in found):
        raise NotFusableError
    return found  # type: ignore[return-value]


def _constants(norm: nn.Module) -> Constants | None:
    """Of a norm that is ``x * scale + shift`` in this call, else None."""
    forward = type(norm).forward
    if is_hooked(norm):
        return None
    layer: Any = norm
    if forward is FrozenNorm.forward or forward is FrozenBatchNorm2d.forward:
        return layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.eps
    if forward not in _BATCH_NORMS or layer.training or layer.running_mean is None or not layer.affine or transformed():
        return None
    if torch.is_grad_enabled() and (layer.weight.requires_grad or layer.bias.requires_grad):
        return None
    return layer.weight.detach(), layer.bias.detach(), layer.running_mean, layer.running_var, layer.eps


def check_relus(*relus: nn.Module) -> None:
    """Raises NotFusableError where one is another activation or has hooks."""
    for relu in relus:
        if type(relu) is not nn.ReLU or is_hooked(relu):
            raise NotFusableError


def conv_norm_act(
    conv: nn.Module, constants: Constants, x: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``."""
    out = conv(x)
    return frozen_batch_norm(out, *constants, residual, relu, inplace=type(out) is Tensor and _only_ours(conv))


def norm_act(out: Tensor, constants: Constants, residual: Tensor | None = None, relu: bool = True) -> Tensor:
    """``relu(norm(out) + residual)`` of a function's result, in place where nobody else has it."""
    return frozen_batch_norm(out, *constants, residual, relu, inplace=type(out) is Tensor and _nobody_records())


def shortcut_of(downsample: nn.Module | None, x: Tensor) -> Tensor:
    """``downsample(x)``, or x for None. The last two modules of a short Sequential are convolution and norm."""
    if downsample is None:
        return x
    if type(downsample) is nn.Sequential and 2 <= len(downsample) <= 3 and not is_hooked(downsample):
        *before, conv, norm = downsample
        constants = _constants(norm)
        if constants is not None:
            for module in before:
                x = module(x)
            return conv_norm_act(conv, constants, x, relu=False)
    return downsample(x)


def basic_block(block: Any, norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The forward of a block of two convolutions with two norms. Raises NotFusableError where one is no constant."""
    first, second = constants_of(norms)
    out = conv_norm_act(block.conv1, first, x)
    return conv_norm_act(block.conv2, second, out, shortcut_of(block.downsample, x))


def bottleneck(block: Any, norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """As :func:`basic_block`, of three convolutions with three norms."""
    first, second, third = constants_of(norms)
    out = conv_norm_act(block.conv1, first, x)
    out = conv_norm_act(block.conv2, second, out)
    return conv_norm_act(block.conv3, third, out, shortcut_of(block.downsample, x))


def plain_conv(conv: Any, x: Tensor) -> Tensor:
    """The convolution of a layer that would call its norm, too."""
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _only_ours(conv: nn.Module) -> bool:
    """Whether only the caller can hold the tensor that ``conv`` has just returned."""
    if is_hooked(conv) or not _nobody_records():
        return False
    if isinstance(conv, MakesNewResult):
        return True
    return type(conv) is nn.Conv2d and runs_as(conv, nn.Conv2d, ("forward", "_conv_forward"))


def _nobody_records() -> bool:
    """Whether no mode, tracer, transform or replaced function may keep results; see layers.conv_norm_act."""
    return not (needs_registered_op() or transformed() or _in_function_mode()) and _functions() == _FUNCTIONS
