"""On CUDA: cuDNN's convolution with a fused epilogue, or torch's and one pass of our kernel, whichever is faster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cuda.ops._registration import autocast_dtype

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d
    from resnet_cuda.inference.strategies import Strategy

_CALLS = 5


@functools.lru_cache(maxsize=1)
def operators() -> tuple[Any, Any] | None:
    """cudnn_convolution_relu and cudnn_convolution_add_relu, or None."""
    aten = torch.ops.aten
    if not (hasattr(aten, "cudnn_convolution_relu") and hasattr(aten, "cudnn_convolution_add_relu")):
        return None
    return aten.cudnn_convolution_relu.default, aten.cudnn_convolution_add_relu.default


def fused(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A Strategy for a ``conv`` with ReLU and bias; raises RuntimeError if cuDNN has no engine for it."""
    found = operators()
    assert found is not None
    convolution_relu, convolution_add_relu = found
    geometry = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
    weight, bias = conv.weight, conv.bias
    dtype = autocast_dtype(input)
    if dtype is not None:
        own_weight, own_bias = weight, bias
        assert own_bias is not None
        weight, bias = conv.packed.get("cudnn", dtype, conv, lambda: (own_weight.to(dtype), own_bias.to(dtype)))
        input, residual = input.to(dtype), None if residual is None else residual.to(dtype)
    with torch.autocast("cuda", enabled=False):
        if residual is None:
            return convolution_relu(input, weight, bias, *geometry)
        residual = residual.contiguous(memory_format=torch.channels_last)
        return convolution_add_relu(input, weight, residual, 1.0, bias, *geometry)


def seconds_on_gpu(call: Callable[[], object]) -> float:
    """Seconds per call between two CUDA events, after one call in which cuDNN chooses its algorithm."""
    call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(_CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / _CALLS


def may_fuse(conv: FoldedConv2d, input: Tensor) -> bool:
    """Whether cuDNN's fused convolution applies: with ReLU and bias, in a dtype that its epilogue supports."""
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


def strategy_for(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, plain: Strategy) -> Strategy:
    """The faster of ``fused`` and ``plain``, timed once per shape; ``plain`` if a CUDA graph is being captured."""
    if not may_fuse(conv, input):
        return plain
    choice = conv.packed.choice
    key = (
        input.shape,
        input.dtype,
        autocast_dtype(input),
        residual is None,
        input.device,
        torch.backends.cudnn.allow_tf32,
    )
    if key not in choice.chosen and torch.cuda.is_current_stream_capturing():
        return plain
    strategies = {"plain": plain, "fused": fused}
    calls = {name: functools.partial(it, conv, input, residual, False) for name, it in strategies.items()}
    with torch.cuda.device(input.device):
        return strategies[choice.choose(key, calls, seconds_on_gpu)]
