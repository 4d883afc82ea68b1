"""How much the deformable convolution gains from threads: with all of them and with one, in turns in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.bench_deform_conv import FLOOR, cases, gradients, leaves, matrix_product, ours
from benchmarks.cases import SCALING, DeformConvCase, make_deform_conv
from benchmarks.measure import compare
from benchmarks.results import OURS, Row, Settings

ONE_THREAD = ", 1 thread"


def run(settings: Settings) -> Iterator[Callable[[], Row]]:
    """Yields one function per case and direction that measures it; none with a single thread, or on CUDA.

    The matrix product shows what the machine allows at that time: on a shared host the second core may be busy, or may
    share no cache with the first.
    """
    threads = torch.get_num_threads()
    if settings.device.type != "cpu" or threads == 1:
        return
    for case in cases(settings) if settings.quick else SCALING:
        yield lambda case=case: _row(case, settings, threads, backward=False)
        yield lambda case=case: _row(case, settings, threads, backward=True)


def _with_threads(count: int, call: Callable[[], object]) -> Callable[[], object]:
    def counted() -> object:
        torch.set_num_threads(count)
        return call()

    return counted


def _row(case: DeformConvCase, settings: Settings, threads: int, backward: bool) -> Row:
    tensors = make_deform_conv(case, settings.device, settings.dtype, settings.channels_last)
    if backward:
        tensors = leaves(tensors)
        call = gradients(ours(case, tensors)(), tensors)
    else:
        call = ours(case, tensors)
    calls = {OURS: call, FLOOR: matrix_product(case, tensors)}
    candidates = {name: _with_threads(threads, call) for name, call in calls.items()}
    candidates |= {name + ONE_THREAD: _with_threads(1, call) for name, call in calls.items()}
    try:
        # Each timed call follows an untimed one with as many threads: changing their number starts threads.
        timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds, own_threads=True)
    finally:
        torch.set_num_threads(threads)
    direction = "backward" if backward else "forward"
    return Row(f"deform_conv2d {direction} with {threads} threads and one", case.name, timings, FLOOR)
