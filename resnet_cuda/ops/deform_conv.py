"""Deformable convolution v1 and v2: public function, fake kernel, autograd and autocast of the compiled operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

from resnet_cuda import _backend, _extension, reference
from resnet_cuda._arguments import conv_geometry
from resnet_cuda.ops._onnx import as_onnx_node
from resnet_cuda.ops._registration import (
    autocast_dtype,
    call_in_backward,
    call_without_graph,
    cast,
    exporting_to_onnx,
    is_distributed,
    needs_gradient,
    needs_registered_op,
    record,
    register_autocast,
    register_autograd,
    register_fake,
    transformed,
)
from resnet_cuda.reference.checks import (
    check_deform_conv2d,
    check_deform_conv2d_tensors,
    check_gradient,
    output_memory_format,
)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = (1, 1),
    padding: int | Sequence[int] = (0, 0),
    dilation: int | Sequence[int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution v1 (no mask) or v2; the signature of ``torchvision.ops.deform_conv2d``.

    A tap is one of the kernel's ``kh*kw`` positions. Each reads the input at its regular position plus a learned
    offset, bilinearly, times its mask. A position ``(y, x)`` gives 0 unless ``-1 < y < H`` and ``-1 < x < W``; pixels
    outside the image are 0. The derivative for the offset is the right-hand one everywhere (torchvision's rule). An
    infinite position is outside; a NaN position gives NaN in that output pixel and in its gradients for offset and
    mask, and no gradient for the input.

    Second derivatives (``create_graph=True``), ``torch.func`` and forward-mode differentiation run the slow reference.

    A 16-bit input is sampled in float32. On CUDA the samples are rounded to input's dtype before the multiplication by
    the weight; on a CPU only bfloat16 is, where there is AVX512-BF16, whose products treat subnormal numbers (below
    1.2e-38) as 0. On a CPU products and bias are summed in float32 and rounded once. On CUDA the product is rounded,
    and once more after adding a bias (only once by the fused forward, which is off by default).

    All tensors are on one device. G is the number of offset groups; it divides C.

    Args:
        input: (N, C, H, W), float64, float32, float16 or bfloat16; any strides; N may be 0, C, H and W are at least 1,
            H and W below 2^31.
        offset: (N, 2*G*kh*kw, Ho, Wo), per offset group and tap ``(dy, dx)`` in input pixels; input's dtype or, with a
            16-bit input, float32. Positions are computed in float32 (float64 for a float64 input).
        weight: (O, C/groups, kh, kw), no size 0, input's dtype. The number of groups is inferred from it; it divides O.
        bias: (O,), input's dtype, or None.
        stride: one int or (vertical, horizontal), at least 1.
        padding: likewise, at least 0.
        dilation: likewise, at least 1.
        mask: (N, G*kh*kw, Ho, Wo), dtype as for offset, or None for DCNv1.

    Returns:
        (N, O, Ho, Wo), input's dtype, channels_last where the input is. Under autocast input, weight and bias are cast
        to its dtype, offset and mask are not; for a float64 input nothing is cast.

    Raises:
        ValueError, RuntimeError: naming the argument that breaks a rule above, its value and what is allowed.
            On CUDA also where indices within one image would exceed 32 bits: ``H*W*C``, ``Ho*Wo`` or a padded H or W of
            2^31 and more, C above 2^28, ``Wo*G*kh*kw`` of 2^29 and more.
        TypeError: for an argument that is not a tensor.

    Sources: Dai et al. 2017 (arXiv:1703.06211); Zhu et al. 2018 (arXiv:1811.11168).
    """
    if isinstance(input, Proxy) or isinstance(offset, Proxy) or isinstance(weight, Proxy):
        return record(deform_conv2d, input, offset, weight, bias, stride, padding, dilation, mask)
    check_deform_conv2d_tensors(input, offset, weight, bias, mask)
    if is_distributed(input):
        raise ValueError(
            "deform_conv2d: input is a DTensor; it must be a plain tensor: call the layer inside "
            "torch.distributed.tensor.experimental.local_map, or on input.to_local()"
        )
    input, weight, offset, mask, bias = _autocast(autocast_dtype(input), input, weight, offset, mask, bias)
    if not _backend.use_native_for(input) or transformed():
        if exporting_to_onnx():
            return as_onnx_node(input, weight, offset, mask, bias, *_flat(stride, padding, dilation))
        return reference.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)

    arguments: tuple[Any, ...] = (input, weight, offset, mask, bias, *_flat(stride, padding, dilation))
    if needs_registered_op():
        if exporting_to_onnx():
            return as_onnx_node(*arguments)
        return _FORWARD(*arguments)
    if needs_gradient(input, weight, offset, mask, bias):
        return _DeformConv2d.apply(*arguments)
    return call_without_graph(_FORWARD, *arguments)


def _flat(stride, padding, dilation) -> tuple[int, ...]:
    """Six integers, as the registered operator takes them."""
    stride, padding, dilation = conv_geometry("deform_conv2d", stride, padding, dilation)
    return *stride, *padding, *dilation


def _autocast(dtype: torch.dtype | None, input, weight, offset, mask, bias, *geometry):
    """Autocast's rule. Not for offset and mask: in 16 bit an offset would lose the fraction of a pixel."""
    return cast(input, dtype), cast(weight, dtype), offset, mask, cast(bias, dtype), *geometry


def _backward(ctx, grad):
    """The gradients that are asked for, in the order of the operator's arguments."""
    needs = ctx.needs_input_grad[:5]  # input, weight, offset, mask, bias
    if transformed() and not needs_registered_op():
        gradients = _reference_gradients(grad, ctx.saved_tensors, ctx.geometry)
    else:
        gradients = call_in_backward(_BACKWARD, grad, *ctx.saved_tensors, *ctx.geometry, *needs)
    asked = (gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))
    return *asked, *(None for _ in ctx.geometry)


def _reference_gradients(grad, tensors, geometry):
    """All gradients by torch's operators: a grad of ``torch.autograd.forward_ad`` has a tangent, one of vmap a further
    dimension."""
    _, pull_back = torch.func.vjp(_forward_of(geometry), *(it for it in tensors if it is not None))
    gradients = list(pull_back(grad))
    if tensors[3] is None:
        gradients.append(None)
    return *gradients, grad.sum((0, 2, 3))


def _forward_of(geometry):
    """The reference as a function of input, weight, offset and, for v2, mask."""
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]

    def forward(input, weight, offset, mask=None):
        return reference.deform_conv2d(input, offset, weight, None, stride, padding, dilation, mask)

    return forward


def _setup_context(ctx, inputs, output):
    input, weight, offset, mask, _bias, *geometry = inputs
    ctx.save_for_backward(input, weight, offset, mask)
    ctx.geometry = tuple(geometry)


class _DeformConv2d(torch.autograd.Function):
    """Eager autograd: about half of the Python overhead of the registered operator's."""

    backward = staticmethod(_backward)

    @staticmethod
    def forward(ctx, *arguments):
        _setup_context(ctx, arguments, None)
        return call_without_graph(_FORWARD, *arguments)


def _setup_backward_context(ctx, inputs, output):
    grad, input, weight, offset, mask, *numbers = inputs
    ctx.save_for_backward(grad, input, weight, offset, mask)
    ctx.geometry, ctx.needs = tuple(numbers[:6]), tuple(numbers[6:])


def _second_gradients(ctx, *cotangents):
    """The derivative of the backward operator, by differentiating the reference twice.

    ``cotangents`` are those of its results: the gradients of input, weight, offset, mask and bias.
    """
    grad, *tensors = ctx.saved_tensors
    need_mask = tensors[3] is not None and ctx.needs[3]
    wanted = [position for position, needed in enumerate((*ctx.needs[:3], need_mask)) if needed]
    if tensors[3] is None:
        tensors.pop()
    forward = _forward_of(ctx.geometry)

    def gradients(grad, *tensors):
        _, pull_back = torch.func.vjp(forward, *tensors)
        first = pull_back(grad)
        return tuple(first[position] for position in wanted)

    second = [None] * (1 + len(tensors))
    if wanted:
        _, pull_back = torch.func.vjp(gradients, grad, *tensors)
        second = list(pull_back(tuple(cotangents[position] for position in wanted)))
    if ctx.needs[4]:  # bias: its gradient is the sum of grad
        of_bias = cotangents[4][:, None, None].expand_as(grad)
        second[0] = of_bias if second[0] is None else second[0] + of_bias
    without_mask = () if len(tensors) == 4 else (None,)
    return *second, *without_mask, *(None for _ in (*ctx.geometry, *ctx.needs))


def _fake(input, weight, offset, mask, bias, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w):
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    shape = check_deform_conv2d(input, weight, offset, mask, bias, *geometry)
    size = (input.shape[0], weight.shape[0], shape.out_height, shape.out_width)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=output_memory_format(input))


def _fake_backward(grad, input, weight, offset, mask, *geometry_and_needs):
    geometry, needs = geometry_and_needs[:6], geometry_and_needs[6:]
    need_input, need_weight, need_offset, need_mask, need_bias = needs
    shape = check_deform_conv2d(input, weight, offset, mask, None, geometry[:2], geometry[2:4], geometry[4:])
    check_gradient("deform_conv2d", grad, input, (input.shape[0], weight.shape[0], shape.out_height, shape.out_width))

    def like(tensor, needed, memory_format):
        if not needed or tensor is None:
            return input.new_empty((0,))
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format)

    return (
        like(input, need_input, output_memory_format(input)),
        like(weight, need_weight, torch.contiguous_format),
        like(offset, need_offset, output_memory_format(offset)),
        like(mask, need_mask, torch.contiguous_format if mask is None else output_memory_format(mask)),
        input.new_empty((weight.shape[0],)) if need_bias else input.new_empty((0,)),
    )


if _extension.CPU_LOADED:
    _FORWARD = torch.ops.resnet_cuda.deform_conv2d.default
    _BACKWARD = torch.ops.resnet_cuda.deform_conv2d_backward.default
    register_fake("deform_conv2d", _fake)
    register_fake("deform_conv2d_backward", _fake_backward)
    register_autograd("deform_conv2d", _backward, _setup_context)
    register_autograd("deform_conv2d_backward", _second_gradients, _setup_backward_context)
    register_autocast("deform_conv2d", _autocast)
