"""The operators' argument checks in Python: for the reference and for the fake kernels that torch.compile runs.

The compiled operators check the same rules in ``csrc/*/*.cpp``, for both devices at once. Every message names the
operator, the argument, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from resnet_cuda._arguments import conv_geometry, integer, pair

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# Of Winograd's convolution.
TILE, PATCH, KERNEL = 4, 6, 3  # pixels a side: of results, of the input that they need, of the kernel
PANEL = 32  # output channels side by side in the transformed weight


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that the operators compute in: float64 for a float64 ``tensor``, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


class DeformConvShape(NamedTuple):
    """Sizes that follow from the arguments of a deformable convolution, and its geometry as pairs."""

    groups: int
    offset_groups: int
    out_height: int
    out_width: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def check_tensor(op: str, name: str, value: object, optional: bool = False) -> None:
    """Checks that ``value`` is a dense tensor: not sparse, nested, quantized or MKLDNN.

    Raises:
        TypeError: for anything that is not a tensor.
        ValueError: for a tensor of another kind.
    """
    if optional and value is None:
        return
    if not isinstance(value, Tensor):
        allowed = "a torch.Tensor or None" if optional else "a torch.Tensor"
        raise TypeError(f"{op}: {name} is {type(value).__name__}; it must be {allowed}")
    if value.is_nested or value.layout is not torch.strided or value.is_quantized:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else f"of layout {value.layout}"
        _fail(op, name, kind, "a dense tensor (layout torch.strided, not nested, not quantized)")


def _fail(op: str, name: str, was: object, allowed: str) -> NoReturn:
    """Call only after a check has failed: formatting a dynamic size specialises a compiled graph on its value."""
    raise ValueError(f"{op}: {name} is {was}; it must be {allowed}")


def _shape(tensor: Tensor) -> str:
    return f"of shape {tuple(tensor.shape)}"


def _check_beside(op: str, name: str, tensor: Tensor, input: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    if tensor.device != input.device:
        _fail(op, name, f"on {tensor.device}", f"on input's device, {input.device}")
    if tensor.dtype not in dtypes:
        allowed = " or ".join(str(dtype) for dtype in dict.fromkeys(dtypes))
        _fail(op, name, tensor.dtype, f"{allowed} where input is {input.dtype}")


def _has_shape(tensor: Tensor, expected: Sequence[int]) -> bool:
    return tensor.dim() == len(expected) and all(tensor.shape[i] == expected[i] for i in range(len(expected)))


def check_input(op: str, input: Tensor, name: str = "input") -> None:
    if input.dtype not in FLOATING:
        _fail(op, name, input.dtype, f"one of {', '.join(str(dtype) for dtype in FLOATING)}")
    if input.dim() != 4:
        _fail(op, name, _shape(input), "4-D, (N, C, H, W)")


def check_deform_conv2d_tensors(
    input: object, offset: object, weight: object, bias: object = None, mask: object = None
) -> None:
    """Raises TypeError or ValueError for the first argument that is not a dense tensor; bias and mask may be None."""
    for name, value in (("input", input), ("offset", offset), ("weight", weight)):
        check_tensor("deform_conv2d", name, value)
    check_tensor("deform_conv2d", "bias", bias, optional=True)
    check_tensor("deform_conv2d", "mask", mask, optional=True)


def check_deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> DeformConvShape:
    """Raises ValueError for the first rule of :func:`deform_conv2d` that the arguments break."""
    op = "deform_conv2d"
    stride, padding, dilation = conv_geometry(op, stride, padding, dilation)
    check_input(op, input)
    position_dtypes = (input.dtype,) if input.dtype == torch.float64 else (input.dtype, torch.float32)
    _check_beside(op, "weight", weight, input, (input.dtype,))
    _check_beside(op, "offset", offset, input, position_dtypes)
    if mask is not None:
        _check_beside(op, "mask", mask, input, position_dtypes)
    if bias is not None:
        _check_beside(op, "bias", bias, input, (input.dtype,))

    batch, channels, height, width = input.shape
    if channels < 1 or height < 1 or width < 1:
        _fail(op, "input", _shape(input), "of C, H, W >= 1")
    if weight.dim() != 4:
        _fail(op, "weight", _shape(weight), "4-D, (O, C/groups, kh, kw)")
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    if out_channels < 1 or group_channels < 1 or kernel_h < 1 or kernel_w < 1:
        _fail(op, "weight", _shape(weight), "of O, C/groups, kh, kw >= 1")
    if channels % group_channels != 0:
        _fail(op, "weight", _shape(weight), f"(O, C/groups, kh, kw) with C = {channels} of input")
    groups = channels // group_channels
    if out_channels % groups != 0:
        _fail(op, "weight", _shape(weight), f"of O divisible by groups = {channels}/{group_channels}")
    taps = kernel_h * kernel_w

    out_height = (height + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    out_width = (width + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    if out_height < 1 or out_width < 1:
        _fail(
            op,
            "input",
            f"of size {height}x{width}, which gives an output of {out_height}x{out_width}",
            f"large enough for kernel {kernel_h}x{kernel_w}, padding {padding}, dilation {dilation}",
        )

    offset_groups = offset.shape[1] // (2 * taps) if offset.dim() == 4 else 0
    if offset_groups < 1 or not _has_shape(offset, (batch, 2 * offset_groups * taps, out_height, out_width)):
        _fail(op, "offset", _shape(offset), _offset_rule(batch, taps, out_height, out_width, channels))
    if channels % offset_groups != 0:
        _fail(op, "offset", _shape(offset), _offset_rule(batch, taps, out_height, out_width, channels))
    if mask is not None and not _has_shape(mask, (batch, offset_groups * taps, out_height, out_width)):
        expected = (batch, offset_groups * taps, out_height, out_width)
        _fail(op, "mask", _shape(mask), f"(N, G*kh*kw, Ho, Wo) = {expected}")
    if bias is not None and not _has_shape(bias, (out_channels,)):
        _fail(op, "bias", _shape(bias), f"(O,) = ({out_channels},)")
    return DeformConvShape(groups, offset_groups, out_height, out_width, stride, padding, dilation)


def _offset_rule(batch: int, taps: int, out_height: int, out_width: int, channels: int) -> str:
    sizes = f"N = {batch}, kh*kw = {taps}, Ho = {out_height}, Wo = {out_width}"
    return f"(N, 2*G*kh*kw, Ho, Wo) with {sizes}, G dividing C = {channels}"


def _check_constant(op: str, name: str, constant: Tensor, beside: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    _check_beside(op, name, constant, beside, dtypes)
    if not _has_shape(constant, (beside.shape[1],)):
        _fail(op, name, _shape(constant), f"(C,) = ({beside.shape[1]},)")


def check_needs_no_gradient(op: str, name: str, constant: Tensor) -> None:
    """Raises ValueError for a constant that requires a gradient: it would silently get none."""
    if constant.requires_grad and torch.is_grad_enabled():
        _fail(op, name, "a tensor that requires a gradient", "a constant: detach it, or use a BatchNorm2d to train it")


def _check_residual(op: str, residual: Tensor | None, input: Tensor) -> None:
    if residual is not None:
        _check_beside(op, "residual", residual, input, (input.dtype,))
        if not _has_shape(residual, input.shape):
            _fail(op, "residual", _shape(residual), f"of input's shape, {tuple(input.shape)}")


def check_frozen_bn_relu(input: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> None:
    """Raises ValueError for the first rule of :func:`frozen_bn_relu` that the arguments break."""
    op = "frozen_bn_relu"
    check_input(op, input)
    for name, constant in (("scale", scale), ("shift", shift)):
        _check_constant(op, name, constant, input, (torch.float32, torch.float64))
        check_needs_no_gradient(op, name, constant)
    _check_residual(op, residual, input)


def check_frozen_batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    residual: Tensor | None,
) -> None:
    """Raises ValueError for the first rule of :func:`frozen_batch_norm` that the arguments break."""
    op = "frozen_batch_norm"
    check_input(op, input)
    buffers = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, buffer in buffers.items():
        _check_constant(op, name, buffer, input, FLOATING)
        check_needs_no_gradient(op, name, buffer)
    _check_residual(op, residual, input)


def check_gradient(op: str, grad: Tensor, input: Tensor, expected: Sequence[int], name: str = "grad") -> None:
    """Checks that ``grad``, named ``name`` in errors, has shape ``expected`` and ``input``'s device and dtype."""
    _check_beside(op, name, grad, input, (input.dtype,))
    if not _has_shape(grad, expected):
        _fail(op, name, _shape(grad), f"of shape {tuple(expected)}")


def check_frozen_bn_backward(grad: Tensor, scale: Tensor, output: Tensor | None) -> None:
    """Raises ValueError for the first rule of the registered backward that the arguments break."""
    check_input("frozen_bn_relu", grad, "grad")
    _check_constant("frozen_bn_relu", "scale", scale, grad, (torch.float32, torch.float64))
    if output is not None:
        check_gradient("frozen_bn_relu", output, grad, grad.shape, "output")


class WinogradShape(NamedTuple):
    """Sizes that follow from the arguments of Winograd's convolution."""

    out_height: int
    out_width: int
    padding: tuple[int, int]


def check_winograd_weight(weight: Tensor) -> None:
    """Raises ValueError where ``weight`` is not that of a 3x3 convolution without groups."""
    op = "winograd_weight"
    if weight.dtype not in FLOATING:
        _fail(op, "weight", weight.dtype, f"one of {', '.join(str(dtype) for dtype in FLOATING)}")
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (KERNEL, KERNEL) or weight.shape[0] < 1 or weight.shape[1] < 1:
        _fail(op, "weight", _shape(weight), f"4-D, (O, C, {KERNEL}, {KERNEL}), of O, C >= 1")


def check_conv2d_winograd(
    input: Tensor,
    weight: Tensor,
    out_channels: int,
    bias: Tensor | None,
    residual: Tensor | None,
    padding: int | Sequence[int],
) -> WinogradShape:
    """Raises ValueError for the first rule of :func:`conv2d_winograd` that the arguments break."""
    op = "conv2d_winograd"
    if input.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        _fail(op, "input", input.dtype, "torch.float32, torch.float16 or torch.bfloat16")
    check_input(op, input)
    padding = pair(op, "padding", padding, 0)
    if padding[0] > 2 or padding[1] > 2:
        _fail(op, "padding", padding, "0, 1 or 2")
    out_channels = integer(op, "out_channels", out_channels, 1)
    batch, channels, height, width = input.shape
    if channels < 1 or height < 1 or width < 1:
        _fail(op, "input", _shape(input), "of C, H, W >= 1")
    out_height, out_width = height + 2 * padding[0] - KERNEL + 1, width + 2 * padding[1] - KERNEL + 1
    if out_height < 1 or out_width < 1:
        kernel = f"{KERNEL}x{KERNEL}"
        _fail(op, "input", f"of size {height}x{width}", f"large enough for kernel {kernel} with padding {padding}")
    panels = -(-out_channels // PANEL)
    packed = f"as winograd_weight returns it, ({PATCH**2}, ceil(O/{PANEL}), C, {PANEL})"
    for name, tensor, axes, expected in (
        ("weight", weight, packed, (PATCH**2, panels, channels, PANEL)),
        ("bias", bias, "(O,)", (out_channels,)),
    ):
        if tensor is not None:
            _check_beside(op, name, tensor, input, (torch.float32,))
            if not _has_shape(tensor, expected):
                _fail(op, name, _shape(tensor), f"{axes} = {expected}")
    expected = (batch, out_channels, out_height, out_width)
    if residual is not None:
        _check_beside(op, "residual", residual, input, (input.dtype,))
        if not _has_shape(residual, expected):
            _fail(op, "residual", _shape(residual), f"of the result's shape, (N, O, Ho, Wo) = {expected}")
    return WinogradShape(out_height, out_width, padding)


def output_memory_format(input: Tensor) -> torch.memory_format:
    """channels_last for an input that is channels_last and not also contiguous, else contiguous."""
    if torch._C._are_functorch_transforms_active():  # is_contiguous(memory_format=...) fails there
        return torch.contiguous_format
    if input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
