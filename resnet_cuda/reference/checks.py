"""The operators' argument rules in Python: for the reference and for the shape functions that torch.compile runs.

The compiled operators check the same rules in ``csrc/*/*.cpp``, for both devices at once. Every message names the
operator, the argument, what it was and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class DeformConvShape(NamedTuple):
    """Sizes that follow from the arguments of a deformable convolution."""

    groups: int
    offset_groups: int
    out_height: int
    out_width: int


def check_tensor(op: str, name: str, value: object, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, Tensor):
        allowed = "a torch.Tensor or None" if optional else "a torch.Tensor"
        raise TypeError(f"{op}: {name} is {type(value).__name__}; it must be {allowed}")


def pair(op: str, name: str, value: int | Sequence[int], minimum: int) -> tuple[int, int]:
    """``value`` as (vertical, horizontal), each at least ``minimum``."""
    numbers = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value, value)
    if len(numbers) != 2 or any(not isinstance(n, (int, torch.SymInt)) or isinstance(n, bool) for n in numbers):
        raise ValueError(f"{op}: {name} is {value!r}; it must be an int or two ints (vertical, horizontal)")
    if any(n < minimum for n in numbers):
        raise ValueError(f"{op}: {name} is {value!r}; it must be at least {minimum}")
    return numbers


def _check(condition: bool, op: str, name: str, was: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{op}: {name} is {was}; it must be {allowed}")


def _check_beside(op: str, name: str, tensor: Tensor, input: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    _check(tensor.device == input.device, op, name, f"on {tensor.device}", f"on input's device, {input.device}")
    allowed = " or ".join(str(dtype) for dtype in dict.fromkeys(dtypes))
    _check(tensor.dtype in dtypes, op, name, tensor.dtype, f"{allowed} beside an input of {input.dtype}")


def check_input(op: str, input: Tensor, name: str = "input") -> None:
    allowed = ", ".join(str(dtype) for dtype in FLOATING)
    _check(input.dtype in FLOATING, op, name, input.dtype, f"one of {allowed}")
    _check(input.dim() == 4, op, name, f"of shape {tuple(input.shape)}", "4-D, (N, C, H, W)")


def check_deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> DeformConvShape:
    """Raises ValueError for the first rule of :func:`deform_conv2d` that the arguments break."""
    op = "deform_conv2d"
    pair(op, "stride", stride, 1)
    pair(op, "padding", padding, 0)
    pair(op, "dilation", dilation, 1)
    check_input(op, input)
    position_dtypes = (input.dtype,) if input.dtype == torch.float64 else (input.dtype, torch.float32)
    _check_beside(op, "weight", weight, input, (input.dtype,))
    _check_beside(op, "offset", offset, input, position_dtypes)
    if mask is not None:
        _check_beside(op, "mask", mask, input, position_dtypes)
    if bias is not None:
        _check_beside(op, "bias", bias, input, (input.dtype,))

    batch, channels, height, width = input.shape
    _check(channels > 0 and height > 0 and width > 0, op, "input", f"of shape {tuple(input.shape)}", "of C, H, W >= 1")
    shape = f"of shape {tuple(weight.shape)}"
    _check(weight.dim() == 4, op, "weight", shape, "4-D, (O, C/groups, kh, kw)")
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    _check(min(weight.shape) >= 1, op, "weight", shape, "of O, C/groups, kh, kw >= 1")
    _check(channels % group_channels == 0, op, "weight", shape, f"(O, C/groups, kh, kw) with C = {channels} of input")
    groups = channels // group_channels
    _check(out_channels % groups == 0, op, "weight", shape, f"of O divisible by groups = {channels}/{group_channels}")
    taps = kernel_h * kernel_w

    out_height = (height + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    out_width = (width + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    _check(
        out_height > 0 and out_width > 0,
        op,
        "input",
        f"of size {height}x{width}, which gives an output of {out_height}x{out_width}",
        f"large enough for kernel {kernel_h}x{kernel_w}, padding {padding}, dilation {dilation}",
    )

    shape = f"of shape {tuple(offset.shape)}"
    expected = f"(N, 2*G*kh*kw, Ho, Wo) with N = {batch}, kh*kw = {taps}, Ho = {out_height}, Wo = {out_width}"
    _check(offset.dim() == 4, op, "offset", shape, expected)
    _check(offset.shape[1] > 0 and offset.shape[1] % (2 * taps) == 0, op, "offset", shape, expected)
    offset_groups = offset.shape[1] // (2 * taps)
    _check(channels % offset_groups == 0, op, "offset", shape, f"{expected}, G dividing C = {channels}")
    _check(
        offset.shape[0] == batch and offset.shape[2] == out_height and offset.shape[3] == out_width,
        op,
        "offset",
        shape,
        expected,
    )
    if mask is not None:
        expected = (batch, offset_groups * taps, out_height, out_width)
        _check(
            mask.dim() == 4 and all(mask.shape[i] == expected[i] for i in range(4)),
            op,
            "mask",
            f"of shape {tuple(mask.shape)}",
            f"(N, G*kh*kw, Ho, Wo) = {expected}",
        )
    if bias is not None:
        _check(
            bias.dim() == 1 and bias.shape[0] == out_channels,
            op,
            "bias",
            f"of shape {tuple(bias.shape)}",
            f"(O,) = ({out_channels},)",
        )
    return DeformConvShape(groups, offset_groups, out_height, out_width)


def check_frozen_bn_relu(input: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> None:
    """Raises ValueError for the first rule of :func:`frozen_bn_relu` that the arguments break."""
    op = "frozen_bn_relu"
    check_input(op, input)
    for name, constant in (("scale", scale), ("shift", shift)):
        _check_beside(op, name, constant, input, (torch.float32, torch.float64))
        _check(
            constant.dim() == 1 and constant.shape[0] == input.shape[1],
            op,
            name,
            f"of shape {tuple(constant.shape)}",
            f"(C,) = ({input.shape[1]},)",
        )
    if residual is not None:
        _check_beside(op, "residual", residual, input, (input.dtype,))
        _check(
            residual.dim() == 4 and all(residual.shape[i] == input.shape[i] for i in range(4)),
            op,
            "residual",
            f"of shape {tuple(residual.shape)}",
            f"of input's shape, {tuple(input.shape)}",
        )


def check_gradient(op: str, grad: Tensor, input: Tensor, expected: tuple[int, ...], name: str = "grad") -> None:
    """``name`` has ``expected`` sizes, and device and dtype of ``input``."""
    _check_beside(op, name, grad, input, (input.dtype,))
    same = grad.dim() == len(expected) and all(grad.shape[i] == expected[i] for i in range(len(expected)))
    _check(same, op, name, f"of shape {tuple(grad.shape)}", f"of shape {expected}")


def check_frozen_bn_backward(grad: Tensor, scale: Tensor, output: Tensor | None) -> None:
    """Raises ValueError for the first rule of the registered backward that the arguments break."""
    op = "frozen_bn_relu"
    check_input(op, grad, "grad")
    _check_beside(op, "scale", scale, grad, (torch.float32, torch.float64))
    _check(
        scale.dim() == 1 and scale.shape[0] == grad.shape[1],
        op,
        "scale",
        f"of shape {tuple(scale.shape)}",
        f"(C,) = ({grad.shape[1]},)",
    )
    if output is not None:
        check_gradient(op, output, grad, tuple(grad.shape), "output")


def output_memory_format(input: Tensor) -> torch.memory_format:
    """channels_last for an input that is laid out so and not also contiguous, else contiguous."""
    if input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
