"""This package's compiled 3x3 convolution (Winograd), used where it is available and estimated to be faster."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cuda._backend import use_native_for
from resnet_cuda.ops._registration import autocast_dtype

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d

_DTYPES = (torch.float32, torch.bfloat16)


@functools.lru_cache(maxsize=1)
def operators() -> Any:
    """The module with ``winograd_weight``, ``conv2d_winograd`` and ``winograd_pays``; None if it is not compiled."""
    if not hasattr(torch.ops.resnet_cuda, "conv2d_winograd"):
        return None
    return importlib.import_module("resnet_cuda.ops.conv2d_winograd")


def takes(conv: FoldedConv2d, input: Tensor) -> bool:
    """Whether ``run`` supports the arguments and is estimated to be the fastest: 3x3, stride 1, on a CPU."""
    if conv.kernel_size != (3, 3) or conv.stride != (1, 1) or conv.dilation != (1, 1) or conv.groups != 1:
        return False
    found = operators()
    if found is None or type(input) is not Tensor or not use_native_for(input):
        return False
    dtype = autocast_dtype(input) or input.dtype
    if dtype not in _DTYPES or (autocast_dtype(input) is None and conv.weight.dtype != dtype):
        return False
    if not found.winograd_usable(dtype) or not all(pad in (0, 1, 2) for pad in conv.padding):
        return False
    height, width = (size + 2 * pad - 2 for size, pad in zip(input.shape[2:], conv.padding, strict=True))
    return found.winograd_pays(conv.in_channels, conv.out_channels, height, width, torch.get_num_threads(), dtype)


def run(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A :class:`~resnet_cuda.inference.strategies.Strategy`."""
    found = operators()
    dtype = autocast_dtype(input) or input.dtype

    def pack() -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode(False), torch.no_grad():
            bias = None if conv.bias is None else conv.bias.detach().float()
            return found.winograd_weight(conv.weight.detach().float()), bias

    weight, bias = conv.packed.get("winograd", None, conv, pack)
    input, residual = input.to(dtype), None if residual is None else residual.to(dtype)
    return found.conv2d_winograd(input, weight, conv.out_channels, bias, residual, conv.relu, conv.padding)
