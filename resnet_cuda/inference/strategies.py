"""The ways to run a FoldedConv2d eagerly, and the choice of one for an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from resnet_cuda.inference import cuda, onednn, winograd
from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.ops.frozen_bn import frozen_bn_relu

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d


class Strategy(Protocol):
    """``relu(conv(input) + residual)`` for a channels_last input; with ``overwrite`` it may overwrite residual."""

    def __call__(self, conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor: ...


def plain(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """torch's convolution, then sum and ReLU in one pass over its result, in place."""
    if (
        residual is None
        or conv.bias is None
        or not (conv.is_plain() and _is_result(conv, conv.weight, input, residual))
    ):
        out = conv._conv_forward(input, conv.weight, conv.bias)
        if residual is not None:
            out = out.add_(residual)
        return out.relu_() if conv.relu else out
    out = conv._conv_forward(input, conv.weight, None)
    ones, shift = conv.packed.get("plain", None, conv, lambda: _constants(conv))
    return frozen_bn_relu(out, ones, shift, residual.to(out.dtype), conv.relu, inplace=True)


def _constants(conv: FoldedConv2d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    shift = conv.bias.detach()
    shift = shift if shift.dtype == torch.float64 else shift.float()
    return torch.ones_like(shift), shift


# These get the weight, which nn.Module looks up slowly, from their caller.


def _fits(conv: FoldedConv2d, weight: Tensor, input: Tensor) -> bool:
    """Whether ``input`` has the channels of the convolution's weight, and is at least as large as its kernel.

    Not of ``in_channels`` and ``kernel_size``, which torch's convolution does not ask either: other code may have
    replaced the weight alone.
    """
    _, channels, height, width = input.shape
    _, group_channels, taps_y, taps_x = weight.shape
    if channels != group_channels * conv.groups or taps_y == taps_x == 1:
        return channels == group_channels * conv.groups
    padding: Any = conv.padding
    (pad_y, pad_x), (step_y, step_x) = padding, conv.dilation
    return height + 2 * pad_y > step_y * (taps_y - 1) and width + 2 * pad_x > step_x * (taps_x - 1)


def _is_result(conv: FoldedConv2d, weight: Tensor, input: Tensor, residual: Tensor) -> bool:
    """Whether ``residual`` has the shape of the result for an ``input`` that fits: the fused sums do not broadcast.

    For a convolution that ``is_plain``. A complex residual, which the sums would cast to a real one, is none.
    """
    if input.dim() != 4 or residual.is_complex():
        return False
    return residual.shape == (input.shape[0], weight.shape[0], *result_size(conv, weight, input))


def result_size(conv: FoldedConv2d, weight: Tensor, input: Tensor) -> tuple[int, int]:
    """Height and width of the result of a convolution that ``is_plain``."""
    height, width = input.shape[-2:]
    (taps_y, taps_x), (stride_y, stride_x) = weight.shape[2:], conv.stride
    (pad_y, pad_x), (step_y, step_x) = conv.padding, conv.dilation
    return (
        (height + 2 * pad_y - step_y * (taps_y - 1) - 1) // stride_y + 1,
        (width + 2 * pad_x - step_x * (taps_x - 1) - 1) // stride_x + 1,
    )


def _compute_dtype(weight: Tensor, input: Tensor) -> torch.dtype | None:
    """Autocast's dtype, or that of input and weight.

    None where these differ, which torch's convolution refuses, and for a Tensor subclass, which has rules of its own.
    """
    if type(input) is not Tensor:
        return None
    dtype = autocast_dtype(input)
    if dtype is not None:
        return dtype
    return input.dtype if input.dtype == weight.dtype else None


def strategy_for(conv: FoldedConv2d, input: Tensor, residual: Tensor | None) -> Strategy:
    """The strategy for ``input``, which is channels_last if it has four dimensions.

    For an input of a wrong shape ``plain``, as torch's error names it; for a residual that broadcasts, too.
    """
    if input.dim() != 4 or input.numel() == 0 or not conv.is_plain():
        return plain
    weight = conv.weight
    if not _fits(conv, weight, input):
        return plain
    if residual is not None and not _is_result(conv, weight, input, residual):
        return plain
    if input.is_cpu:
        dtype = _compute_dtype(weight, input)
        if dtype is None:
            return plain
        if winograd.takes(conv, weight, input, dtype):
            return winograd.run
        return onednn.run if onednn.takes(conv, residual, dtype) else plain
    if input.is_cuda:
        return cuda.strategy_for(conv, input, residual, plain)
    return plain
