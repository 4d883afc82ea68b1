"""Export of the deformable convolution as ONNX's operator DeformConv, for both of torch's exporters.

DeformConv (opset 19) has this operator's layouts, groups and zeros outside the image: ``offset`` (N, G*kh*kw*2, Ho, Wo)
with (dy, dx) per tap, ``mask`` (N, G*kh*kw, Ho, Wo). Only the order of its inputs differs: X, W, offset, B, mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resnet_cuda.reference.checks import check_deform_conv2d

OPSET = 19  # the first with DeformConv


def as_onnx_node(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, *geometry):
    """The call in a graph that becomes ONNX. ``torch.onnx.export`` is running, with ``dynamo=True`` or without."""
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    if input.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"deform_conv2d: input is {input.dtype}; for ONNX it must be torch.float32 or torch.float64, which is what "
            "runtimes have DeformConv for: export model.float()"
        )
    if torch.jit.is_tracing():
        register_symbolic()
        return torch.ops.resnet_cuda.deform_conv2d(input, weight, offset, mask, bias, *geometry)
    shape = check_deform_conv2d(input, weight, offset, mask, bias, stride, padding, dilation)
    attributes = _attributes(shape.groups, shape.offset_groups, weight.shape[2:], *geometry)
    size = (input.shape[0], weight.shape[0], shape.out_height, shape.out_width)
    inputs = (input, weight, offset, bias, mask)
    return torch.onnx.ops.symbolic("DeformConv", inputs, attributes, dtype=input.dtype, shape=size, version=OPSET)


def _attributes(groups, offset_groups, kernel, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w) -> dict:
    return {
        "dilations": [dilation_h, dilation_w],
        "group": groups,
        "kernel_shape": [int(size) for size in kernel],
        "offset_group": offset_groups,
        "pads": [pad_h, pad_w, pad_h, pad_w],
        "strides": [stride_h, stride_w],
    }


def translation(
    input: Any, weight: Any, offset: Any, mask: Any, bias: Any, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int
) -> Any:
    """``resnet_cuda::deform_conv2d`` as torch.onnx's ``custom_translation_table`` takes it, in ONNX Script."""
    from onnxscript import opset19  # type: ignore[import-not-found, unused-ignore]

    _, group_channels, *kernel = weight.shape
    offset_groups = offset.shape[1] // (2 * kernel[0] * kernel[1])
    attributes = _attributes(input.shape[1] // group_channels, offset_groups, kernel, sh, sw, ph, pw, dh, dw)
    return opset19.DeformConv(input, weight, offset, bias, mask, **attributes)


def register_symbolic() -> None:
    """Makes the exporter through TorchScript (``dynamo=False``) translate ``resnet_cuda::deform_conv2d``."""
    global _registered
    if not _registered:
        torch.onnx.register_custom_op_symbolic("resnet_cuda::deform_conv2d", _symbolic, OPSET)
        _registered = True


_registered = False


def _symbolic(graph, input, weight, offset, mask, bias, *geometry):
    from torch.onnx import symbolic_helper

    numbers = [symbolic_helper._get_const(it, "i", "geometry") for it in geometry]
    out_channels, group_channels, *kernel = symbolic_helper._get_tensor_sizes(weight)
    channels, offsets = (symbolic_helper._get_tensor_dim_size(it, 1) for it in (input, offset))
    attributes = _attributes(channels // group_channels, offsets // (2 * kernel[0] * kernel[1]), kernel, *numbers)
    if symbolic_helper._is_none(bias):
        dtype = torch.float64 if input.type().scalarType() == "Double" else torch.float32
        bias = graph.op("Constant", value_t=torch.zeros(out_channels, dtype=dtype))
    inputs = [input, weight, offset, bias]
    if not symbolic_helper._is_none(mask):
        inputs.append(mask)
    return graph.op("DeformConv", *inputs, **{f"{name}_i": value for name, value in attributes.items()})
