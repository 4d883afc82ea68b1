"""3x3 convolution of stride 1 by Winograd's F(4x4, 3x3), with bias, residual and ReLU: for inference on CPUs.

A quarter of the multiplications of a direct convolution. Internal: ``resnet_cuda.inference`` calls it where it pays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cuda import _extension, reference
from resnet_cuda._arguments import flag, integer, pair
from resnet_cuda._backend import use_native_for
from resnet_cuda.ops._registration import (
    call_without_graph,
    needs_gradient,
    needs_registered_op,
    refuse_autograd,
    register_fake,
    transformed,
)
from resnet_cuda.reference.checks import check_conv2d_winograd, check_tensor
from resnet_cuda.reference.conv2d_winograd import winograd_weight

__all__ = ["conv2d_winograd", "winograd_weight"]


def conv2d_winograd(
    input: Tensor,
    weight: Tensor,
    out_channels: int,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    padding: int | Sequence[int] = 1,
) -> Tensor:
    """``relu(conv2d(input, w, bias, padding=padding) + residual)`` for a 3x3 kernel ``w``, stride and dilation 1.

    A result depends on its tile's whole patch of 6x6 input pixels: if one of these is NaN or infinite, most of the
    tile's 16 results are NaN, even those outside the pixel's 3x3 neighbourhood. Inputs above 1e34 may overflow.
    Rounding errors are about twice those of a direct convolution in float32: 1.2e-6 of the results' root mean square at
    C = 256, with He weights and inputs after a ReLU.

    Args:
        input: (N, C, H, W), float32, float16 or bfloat16, on the CPU; any strides (channels_last is not copied), N may
            be 0.
        weight: float32, ``winograd_weight(w)`` of ``w`` (O, C, 3, 3).
        out_channels: O, which cannot be inferred from the padded weight.
        bias: (O,), float32, or None.
        residual: the result's shape and input's dtype, or None.
        relu: whether to clamp at 0; NaN stays NaN.
        padding: 0, 1 or 2 zeros on each side, or two of them (vertical, horizontal).

    Returns:
        (N, O, H + 2*padding - 2, W + 2*padding - 2), input's dtype, always channels_last. Computed in float32 and
        rounded once. The bits do not depend on the number of threads or on the batch.

    Raises:
        ValueError, RuntimeError: naming the argument that breaks a rule above, its value and what is allowed;
            RuntimeError for a tensor that requires a gradient: there is no derivative.
        TypeError: for an argument that is not a tensor.

    Source: Lavin and Gray 2016 (arXiv:1509.09308).
    """
    op = "conv2d_winograd"
    relu, (pad_h, pad_w) = flag(op, "relu", relu), pair(op, "padding", padding, 0)
    out_channels = integer(op, "out_channels", out_channels, 1)
    for name, value in (("input", input), ("weight", weight)):
        check_tensor(op, name, value)
    for name, optional in (("bias", bias), ("residual", residual)):
        check_tensor(op, name, optional, optional=True)
    if needs_gradient(input, weight, bias, residual):
        raise RuntimeError(f"{op} has no derivative; call it in torch.no_grad(), or torch.nn.functional.conv2d")
    if not input.is_cpu or not use_native_for(input) or transformed():
        return reference.conv2d_winograd(input, weight, out_channels, bias, residual, relu, padding)
    arguments = (input, weight, out_channels, bias, residual, relu, pad_h, pad_w)
    return _FORWARD(*arguments) if needs_registered_op() else call_without_graph(_FORWARD, *arguments)


def _fake(input, weight, out_channels, bias, residual, relu, pad_h, pad_w):
    shape = check_conv2d_winograd(input, weight, out_channels, bias, residual, (pad_h, pad_w))
    size = (input.shape[0], out_channels, shape.out_height, shape.out_width)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


if _extension.CPU_LOADED:
    _FORWARD = torch.ops.resnet_cuda.conv2d_winograd.default
    register_fake("conv2d_winograd", _fake)
    refuse_autograd("conv2d_winograd", "torch.nn.functional.conv2d")
