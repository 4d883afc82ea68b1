"""Phase 1: what the machine itself can do; every other time is held against these."""

from __future__ import annotations

import torch

from benchmarks.gpu import atomics
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.records import best_known
from benchmarks.gpu.side_by_side import effort
from benchmarks.gpu.timing import microseconds
from benchmarks.gpu.variants import tf32


def copy(context: Context, megabytes: float) -> dict[str, object]:
    """Copies half of ``megabytes`` onto the other half; read and written bytes count."""
    source = torch.randn(int(megabytes * 1e6) // 4, device=context.device).bfloat16()
    target = torch.empty_like(source)
    line = microseconds(lambda: target.copy_(source), context.device, effort(context))
    return line | {"gigabytes_per_second": round(2 * source.nbytes / best_known(line) / 1e3, 1)}


def _matrix_product(context: Context, dtype: torch.dtype, allow_tf32: bool) -> dict[str, object]:
    size = 128 if context.quick else 8192
    left, right = (torch.randn(size, size, device=context.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    with tf32(allow_tf32):
        line = microseconds(lambda: torch.mm(left, right, out=out), context.device, effort(context))
    return line | {"size": size, "teraflops": round(2 * size**3 / best_known(line) / 1e6, 3)}


def _empty_launch(context: Context) -> dict[str, object]:
    if context.device.type == "cuda":
        return microseconds(lambda: torch.cuda._sleep(0), context.device, effort(context))
    nothing = torch.zeros(1)
    return microseconds(nothing.zero_, context.device, effort(context))


def run(context: Context) -> None:
    context.write("clocks", **read_clocks(context.device))
    large, small = (2, 0.5) if context.quick else (4000, 20)
    measurements = {
        "copy": lambda: copy(context, large),
        "copy in L2, 20 MB in all": lambda: copy(context, small),
        "matrix product, bfloat16": lambda: _matrix_product(context, torch.bfloat16, False),
        "matrix product, TF32": lambda: _matrix_product(context, torch.float32, True),
        "matrix product, float32": lambda: _matrix_product(context, torch.float32, False),
        "empty launch": lambda: _empty_launch(context),
    }
    for item, measure in measurements.items():
        if context.enough_time(item):
            context.write("ceiling", item=item, **measure())
    atomics.measure(context)
    context.not_measured("shared memory of another block of a cluster", "neither torch nor Triton can address it")
    context.write("clocks", **read_clocks(context.device))
