"""On CUDA: cuDNN's convolution with bias, residual sum and ReLU in its epilogue."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cuda.inference.packing import parameters_in
from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.reference.precision import in_full_precision

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d


@functools.lru_cache(maxsize=1)
def operators() -> tuple[Any, Any] | None:
    """cudnn_convolution_relu and cudnn_convolution_add_relu, or None."""
    aten = torch.ops.aten
    if not (hasattr(aten, "cudnn_convolution_relu") and hasattr(aten, "cudnn_convolution_add_relu")):
        return None
    return aten.cudnn_convolution_relu.default, aten.cudnn_convolution_add_relu.default


def run(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A Strategy for what ``takes`` takes; raises RuntimeError if cuDNN has no engine for it."""
    found = operators()
    assert found is not None
    convolution_relu, convolution_add_relu = found
    geometry = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
    dtype = autocast_dtype(input)
    weight, bias = parameters_in(conv, dtype)
    if dtype is not None:
        input, residual = input.to(dtype), None if residual is None else residual.to(dtype)
    with in_full_precision("cuda"):
        if residual is None:
            return convolution_relu(input, weight, bias, *geometry)
        residual = residual.contiguous(memory_format=torch.channels_last)
        return convolution_add_relu(input, weight, residual, 1.0, bias, *geometry)


def takes(conv: FoldedConv2d, input: Tensor) -> bool:
    """Whether there is ReLU and bias, in a dtype that the epilogue supports."""
    dtype = autocast_dtype(input) or input.dtype
    return (
        conv.relu
        and conv.bias is not None
        and type(input) is Tensor
        and dtype in (torch.float32, torch.float16, torch.bfloat16)
        and (input.dtype == conv.weight.dtype or autocast_dtype(input) is not None)
        and torch.backends.cudnn.enabled
        and operators() is not None
    )
