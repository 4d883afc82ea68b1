"""Deformable convolution with a ReLU in its epilogue: for inference.

Internal: ``resnet_cuda.inference`` calls it where a norm is folded into the convolution and a ReLU follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Proxy

from resnet_cuda import _backend, _extension
from resnet_cuda._arguments import conv_geometry
from resnet_cuda.ops._registration import (
    autocast_dtype,
    call_without_graph,
    cast,
    needs_gradient,
    needs_registered_op,
    refuse_autograd,
    register_fake,
    transformed,
)
from resnet_cuda.ops.deform_conv import _fake, deform_conv2d
from resnet_cuda.reference.checks import check_deform_conv2d_tensors


def deform_conv2d_relu(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = (1, 1),
    padding: int | Sequence[int] = (0, 0),
    dilation: int | Sequence[int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """``relu(deform_conv2d(...))`` with the same arguments, result and errors; NaN stays NaN.

    One pass if the kernels are compiled and no gradient is needed. Under torch.compile, torch.export, tracing,
    transforms and dispatch modes, and if a gradient is needed, the two operators run separately.
    """
    arguments = (input, offset, weight, bias, mask)
    if any(isinstance(it, Proxy) for it in arguments) or needs_registered_op() or transformed():
        return F.relu(deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask))
    check_deform_conv2d_tensors(input, offset, weight, bias, mask)
    if needs_gradient(*arguments) or not _backend.use_native_for(input):
        return F.relu(deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask))
    dtype = autocast_dtype(input)
    geometry = (number for pair in conv_geometry("deform_conv2d", stride, padding, dilation) for number in pair)
    input, weight, bias = cast(input, dtype), cast(weight, dtype), cast(bias, dtype)
    return call_without_graph(_FORWARD, input, weight, offset, mask, bias, *geometry)


if _extension.CPU_LOADED:
    _FORWARD = torch.ops.resnet_cuda.deform_conv2d_relu.default
    register_fake("deform_conv2d_relu", _fake)
    refuse_autograd("deform_conv2d_relu", "resnet_cuda.ops.deform_conv2d and torch.relu")
