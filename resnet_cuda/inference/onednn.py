"""oneDNN's convolutions with ReLU and sum in their epilogue and packed weights, as torch.compile's freezing uses them.

torch does not guarantee these operators' names, so they are used only if they exist with the arguments that they have
had since torch 2.0.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.reference.precision import in_full_precision

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d

_POINTWISE = "X W B padding stride dilation groups attr scalars algorithm"
_BINARY = "W B padding stride dilation groups binary_attr alpha unary_attr unary_scalars unary_algorithm"
_ARGUMENTS = {  # of the operators' overloads
    ("_convolution_pointwise", "default"): _POINTWISE,
    ("_convolution_pointwise", "binary"): f"X other {_BINARY}",
    ("_convolution_pointwise_", "binary"): f"other X {_BINARY}",
    ("_reorder_convolution_weight", "default"): "self padding stride dilation groups input_size",
}


@functools.lru_cache(maxsize=1)
def operators() -> tuple[Any, Any, Any, Any] | None:
    """Convolution with ReLU, with sum and ReLU, the same in place, weight packing; None if one does not exist."""
    if not torch.backends.mkldnn.is_available():
        return None
    found = []
    for (name, overload), arguments in _ARGUMENTS.items():
        operator = getattr(getattr(torch.ops.mkldnn, name, None), overload, None)
        if operator is None or [it.name for it in operator._schema.arguments] != arguments.split():
            return None
        found.append(operator)
    return tuple(found)  # type: ignore[return-value]


@functools.lru_cache(maxsize=4)
def _supports(dtype: torch.dtype) -> bool:
    if dtype == torch.float32:
        return True
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    check = None if name is None else getattr(torch.ops.mkldnn, name, None)
    return check is not None and bool(check())


def takes(conv: FoldedConv2d, residual: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether ``run`` computes in ``dtype``: float32, or a 16-bit one that the processor has instructions for.

    Not a residual with several groups: torch adds it outside oneDNN, which fails for bfloat16.
    """
    return (
        (residual is None or conv.groups == 1)
        and bool(torch.backends.mkldnn.enabled)
        and operators() is not None
        and _supports(dtype)
    )


def run(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A :class:`~resnet_cuda.inference.strategies.Strategy`."""
    dtype = autocast_dtype(input) or input.dtype
    found = operators()
    assert found is not None
    pointwise, binary, binary_in_place, reorder = found
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    size = input.shape

    def pack() -> tuple[Tensor, Tensor | None]:
        bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        with torch.inference_mode(False), torch.no_grad():
            # A pack for another size would be reordered at every call, for some by loops that take ten times as long.
            return reorder(conv.weight.detach().to(dtype), *geometry, size), bias

    weight, bias = conv.packed.get("onednn", (dtype, size), conv, pack)
    # Not torch.autocast(enabled=False) alone, which takes longer than all else here.
    with in_full_precision("cpu"):
        input = input.to(dtype)
        if residual is None:
            return pointwise(input, weight, bias, *geometry, "relu" if conv.relu else "none", [], "")
        own = residual.to(dtype).contiguous(memory_format=torch.channels_last)
        arguments: tuple = weight, bias, *geometry, "add", 1.0, "relu" if conv.relu else None, [], None
        if own is not residual or overwrite:
            return binary_in_place(own, input, *arguments)
        return binary(input, own, *arguments)
