"""What the GPU itself can do: copies, matrix products, launches, reductions."""

from functools import partial

import torch

from benchmarks import reductions
from benchmarks.gpu.context import Context
from benchmarks.measure import Candidate, compare_blocks, tf32
from benchmarks.records import microseconds


def copy(context: Context, item: str = "copy", megabytes: float = 4000) -> float:
    """GB/s, on record, of copying half of ``megabytes`` onto the other half; read and written bytes count."""
    source = torch.randn(int(megabytes / (2000 if context.quick else 1) * 1e6) // 4, device=context.device).bfloat16()
    target = torch.empty_like(source)
    line = compare_blocks([Candidate(item, [lambda: target.copy_(source)])], context.device, context.effort)[item]
    rate = round(2 * source.nbytes / microseconds(line) / 1e3, 1)
    context.write("ceiling", item=item, **line, gigabytes_per_second=rate)
    return rate


def matrix_product(context: Context, item: str, dtype: torch.dtype, allow_tf32: bool) -> None:
    size = 128 if context.quick else 8192
    left, right, out = (torch.randn(size, size, device=context.device).to(dtype) for _ in range(3))
    made = Candidate(item, [lambda: torch.mm(left, right, out=out)], lambda: tf32(allow_tf32))
    line = compare_blocks([made], context.device, context.effort)[item]
    teraflops = round(2 * size**3 / microseconds(line) / 1e6, 3)
    context.write("ceiling", item=item, **line, size=size, teraflops=teraflops)


def run(context: Context) -> None:
    context.write_clocks()
    calls = {
        "copy": copy,
        "copy in L2, 20 MB in all": partial(copy, megabytes=20),
        "matrix product, bfloat16": partial(matrix_product, dtype=torch.bfloat16, allow_tf32=False),
        "matrix product, TF32": partial(matrix_product, dtype=torch.float32, allow_tf32=True),
        "matrix product, float32": partial(matrix_product, dtype=torch.float32, allow_tf32=False),
    }
    for item, call in calls.items():
        if context.enough_time(item):
            call(context, item)
    launch = (lambda: torch.cuda._sleep(0)) if context.device.type == "cuda" else torch.zeros(1).zero_
    if context.enough_time(item := "empty launch"):
        line = compare_blocks([Candidate(item, [launch])], context.device, context.effort)[item]
        context.write("ceiling", item=item, **line)
    for item in reductions.ITEMS:
        reason = reductions.why_not(item, context.device)
        if reason is not None:
            context.not_measured(item, reason)
        elif context.enough_time(item):
            context.write("ceiling", item=item, **reductions.measure(item, context.device, context.effort))
    context.write_clocks()
