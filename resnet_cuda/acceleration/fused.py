"""Norm, residual sum and ReLU in one pass over a convolution's result, for blocks and stems of other libraries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.layers.constant_norm import Constants, batch_norm_constants
from resnet_cuda.layers.hooks import is_relu, runs_only
from resnet_cuda.layers.overwriting import may_overwrite_result, nobody_records
from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.ops.frozen_bn import frozen_batch_norm

_CONVERTED = (torch.float32, torch.float16, torch.bfloat16)  # by autocast


class NotFusableError(Exception):
    """Raised where the library's own forward must run in this call."""


def required_constants(norms: Sequence[nn.Module]) -> list[Constants]:
    """Weight, bias, mean, variance and eps of each norm. Raises NotFusableError if one has hooks or is not constant."""
    found = []
    for norm in norms:
        constants = batch_norm_constants(norm)
        if constants is None:
            raise NotFusableError
        found.append(constants)
    return found


def check_relus(*relus: nn.Module) -> None:
    """Raises NotFusableError if one is another activation or has hooks."""
    if not all(map(is_relu, relus)):
        raise NotFusableError


def run_fused(
    conv: nn.Module,
    constants: Constants,
    x: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    norm: nn.Module | None = None,
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``. ``norm`` is needed if ``conv`` may return other than a batch of images."""
    out = run(conv, x)
    if norm is not None and type(out) is Tensor and out.dim() != 4:  # SyncBatchNorm takes any
        out = norm(out)
        return F.relu(out) if relu else out
    return _norm_sum_act(out, constants, residual, relu, type(out) is Tensor and may_overwrite_result(_last(conv)))


def norm_act(out: Tensor, constants: Constants, residual: Tensor | None = None, relu: bool = True) -> Tensor:
    """``relu(norm(out) + residual)`` of a function's result, in place where no one else holds it."""
    return _norm_sum_act(out, constants, residual, relu, type(out) is Tensor and nobody_records())


def _norm_sum_act(out: Tensor, constants: Constants, residual: Any, relu: bool, inplace: bool) -> Tensor:
    if residual is None or _can_be_fused(out, residual):
        return frozen_batch_norm(out, *constants, residual, relu, inplace=inplace)
    out = frozen_batch_norm(out, *constants, inplace=inplace)
    out += residual  # as all of the libraries: the sum has the shape and dtype of out
    return F.relu(out) if relu else out


def _can_be_fused(out: Any, residual: Any) -> bool:
    """Whether ``residual`` has the shape and dtype that one pass adds, which converts it under autocast."""
    if isinstance(out, Proxy) or isinstance(residual, Proxy):
        return True
    if not isinstance(residual, Tensor) or residual.shape != out.shape:
        return False
    return residual.dtype == out.dtype or (residual.dtype in _CONVERTED and autocast_dtype(out) is not None)


def run_in_sequence(modules: Iterable[Any], x: Any, kept: Collection[int] = ()) -> tuple[Any, dict[int, Any]]:
    """Runs modules in sequence; a module, the constant norm after it and the ReLU after that run fused.

    Args:
        kept: the indices of modules whose own results are needed.

    Returns:
        The last result, and those of ``kept`` by index.
    """
    run_in_order = list(modules)
    results: dict[int, Any] = {}
    place = 0
    while place < len(run_in_order):
        module, *after = run_in_order[place : place + 3]
        constants = batch_norm_constants(after[0]) if after and place not in kept else None
        if constants is None:
            x = run(module, x)
        else:
            relu = len(after) == 2 and is_relu(after[1]) and place + 1 not in kept
            x = run_fused(module, constants, x, relu=relu, norm=after[0])
            place += 2 if relu else 1
        if place in kept:
            results[place] = x
        place += 1
    return x, results


def run(module: nn.Module, x: Any) -> Any:
    """``module(x)``; a Sequential without hooks runs its modules by :func:`run_in_sequence`."""
    if not runs_only(module, nn.Sequential):
        return module(x)
    return run_in_sequence(module, x)[0]  # not children(), which gives a module in two places once


def _last(module: nn.Module) -> nn.Module:
    """The module whose result :func:`run` returns."""
    while runs_only(module, nn.Sequential) and len(module) > 0:
        module = list(module)[-1]
    return module


def basic_block(block: Any, norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The forward of a block of two convolutions with norms. Raises NotFusableError if a norm is not constant."""
    first, second = required_constants(norms)
    out = run_fused(block.conv1, first, x)
    return run_fused(block.conv2, second, out, _shortcut_of(block.downsample, x))


def bottleneck(block: Any, norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """As :func:`basic_block`, for three convolutions with norms."""
    first, second, third = required_constants(norms)
    out = run_fused(block.conv1, first, x)
    out = run_fused(block.conv2, second, out)
    return run_fused(block.conv3, third, out, _shortcut_of(block.downsample, x))


def _shortcut_of(downsample: nn.Module | None, x: Tensor) -> Any:
    return x if downsample is None else run(downsample, x)


def plain_conv(conv: Any, x: Tensor) -> Tensor:
    """The convolution alone of a layer whose forward also calls its norm."""
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
