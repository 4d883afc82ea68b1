"""The ways to run a FoldedConv2d eagerly, and the choice of one for an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from resnet_cuda.inference import cuda, onednn, winograd
from resnet_cuda.ops.frozen_bn import frozen_bn_relu

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d


class Strategy(Protocol):
    """``relu(conv(input) + residual)`` for a channels_last input; with ``overwrite`` it may overwrite residual."""

    def __call__(self, conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor: ...


def plain(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """torch's convolution, then sum and ReLU in one pass over its result, in place."""
    if residual is None or conv.bias is None or not _is_result(conv, input, residual):
        out = conv._conv_forward(input, conv.weight, conv.bias)
        if residual is not None:
            out = out.add_(residual)
        return out.relu_() if conv.relu else out
    out = conv._conv_forward(input, conv.weight, None)
    ones, shift = conv.packed.get("plain", None, conv, lambda: _constants(conv))
    return frozen_bn_relu(out, ones, shift, residual, conv.relu, inplace=True)


def _constants(conv: FoldedConv2d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    shift = conv.bias.detach()
    shift = shift if shift.dtype == torch.float64 else shift.float()
    return torch.ones_like(shift), shift


def _fits(conv: FoldedConv2d, input: Tensor) -> bool:
    """Whether ``input`` has the convolution's channels, and is at least as large as its kernel."""
    _, channels, height, width = input.shape
    taps_y, taps_x = conv.kernel_size
    if channels != conv.in_channels or taps_y == taps_x == 1:
        return channels == conv.in_channels
    padding: Any = conv.padding
    (pad_y, pad_x), (step_y, step_x) = padding, conv.dilation
    return height + 2 * pad_y > step_y * (taps_y - 1) and width + 2 * pad_x > step_x * (taps_x - 1)


def _is_result(conv: FoldedConv2d, input: Tensor, residual: Tensor) -> bool:
    """Whether ``residual`` has the shape of the result for an ``input`` that fits: the fused sums do not broadcast."""
    if input.dim() != 4 or not conv.is_plain():
        return False
    return residual.shape == (input.shape[0], conv.out_channels, *result_size(conv, input))


def result_size(conv: FoldedConv2d, input: Tensor) -> tuple[int, int]:
    """Height and width of the result of a convolution whose padding is numbers, see ``FoldedConv2d.is_plain``."""
    height, width = input.shape[-2:]
    (taps_y, taps_x), (stride_y, stride_x) = conv.kernel_size, conv.stride
    (pad_y, pad_x), (step_y, step_x) = conv.padding, conv.dilation
    return (
        (height + 2 * pad_y - step_y * (taps_y - 1) - 1) // stride_y + 1,
        (width + 2 * pad_x - step_x * (taps_x - 1) - 1) // stride_x + 1,
    )


def strategy_for(conv: FoldedConv2d, input: Tensor, residual: Tensor | None) -> Strategy:
    """The strategy for ``input``, which is channels_last if it has four dimensions.

    For an input of a wrong shape ``plain``, as torch's error names it; for a residual that broadcasts, too.
    """
    if input.dim() != 4 or input.numel() == 0 or not conv.is_plain() or not _fits(conv, input):
        return plain
    if residual is not None and not _is_result(conv, input, residual):
        return plain
    if input.is_cpu:
        if winograd.takes(conv, input):
            return winograd.run
        return onednn.run if onednn.takes(conv, input, residual) else plain
    if input.is_cuda:
        return cuda.strategy_for(conv, input, residual, plain)
    return plain
