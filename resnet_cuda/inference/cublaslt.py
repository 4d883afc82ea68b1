"""On CUDA: a 1x1 convolution as a matrix product with bias and ReLU in cuBLASLt's epilogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cuda.inference.packing import parameters_in
from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.reference.precision import in_full_precision

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d

# Not float32: whether a product may round to TF32 is another setting than for convolutions.
_DTYPES = (torch.float16, torch.bfloat16)


def takes(conv: FoldedConv2d, input: Tensor, residual: Tensor | None) -> bool:
    """Whether it is a product: 1x1, stride 1, no padding, one group; with bias, without residual, in 16 bits."""
    dtype = autocast_dtype(input)
    return (
        residual is None
        and not torch.are_deterministic_algorithms_enabled()  # which wants a variable for cuBLAS
        and conv.bias is not None
        and conv.weight.shape[2:] == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and type(input) is Tensor
        and (dtype or input.dtype) in _DTYPES
        and (dtype is not None or input.dtype == conv.weight.dtype == conv.bias.dtype)
    )


def run(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A Strategy for what ``takes`` takes; ``input`` is channels_last."""
    dtype = autocast_dtype(input)
    weight, bias = parameters_in(conv, dtype)
    pixels = input.to(dtype or input.dtype).permute(0, 2, 3, 1)
    with in_full_precision(input.device.type):
        product = torch._addmm_activation if conv.relu else torch.addmm
        out = product(bias, pixels.flatten(0, 2), weight.flatten(1).t())
    return out.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
