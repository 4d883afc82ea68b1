"""On CUDA: which way a folded convolution is run, by measurement."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cuda.inference import cublaslt, cudnn
from resnet_cuda.ops._registration import autocast_dtype

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d
    from resnet_cuda.inference.strategies import Strategy

_CALLS = 5
_LAUNCHING_CYCLES = 1_000_000  # 0.5 ms at 2 GHz: longer than the host takes to launch all calls


def seconds_on_gpu(call: Callable[[], object]) -> float:
    """Seconds per call between two CUDA events, after one call in which cuDNN chooses its algorithm.

    The GPU waits first, until the host has launched all calls: otherwise small kernels would be judged by their
    launches.
    """
    call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(_LAUNCHING_CYCLES)
    start.record()
    for _ in range(_CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / _CALLS


def strategy_for(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, plain: Strategy) -> Strategy:
    """The fastest way, timed once per shape; ``plain`` if a CUDA graph is being captured.

    The ways: cuDNN's fused convolution, cuBLASLt's product with an epilogue, or ``plain``.
    """
    strategies = {"plain": plain}
    if cudnn.takes(conv, input):
        strategies["cudnn"] = cudnn.run
    if cublaslt.takes(conv, input, residual):
        strategies["cublaslt"] = cublaslt.run
    if len(strategies) == 1:
        return plain
    autotuner = conv.packed.autotuner
    key = (
        *strategies,
        input.shape,
        input.dtype,
        autocast_dtype(input),
        residual is None,
        input.device,
        torch.backends.cudnn.allow_tf32,
    )
    if key not in autotuner.chosen and torch.cuda.is_current_stream_capturing():
        return plain
    calls = {name: functools.partial(it, conv, input, residual, False) for name, it in strategies.items()}
    with torch.cuda.device(input.device):
        return strategies[autotuner.choose(key, calls, seconds_on_gpu)]
