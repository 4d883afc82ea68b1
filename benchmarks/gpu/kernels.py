"""Time by kernel of deform_conv2d at C4, batch 8, and of R-50-FPN; and what ncu profiles."""

import contextlib
from collections.abc import Callable

import torch

from benchmarks.bench_backbone import INFERENCE, TRAINING
from benchmarks.bench_deform_conv import gradients
from benchmarks.cases import layer
from benchmarks.gpu.backbones import prepare
from benchmarks.gpu.cells import OURS, OURS_AUTOCAST, OURS_OPTIMIZED
from benchmarks.gpu.context import Context
from benchmarks.gpu.warpgroup import COLUMN_GRADIENT, FORWARD, WEIGHT_GRADIENT, variables
from benchmarks.kernel_times import kernel_times
from benchmarks.measure import graphed, synchronize
from benchmarks.peers.variants import VARIANTS, make_set

IMAGES = {"C3": 1, "C4": 2, "C5": 4}  # of a chunk at batch 8: what 48 MB hold


def _both_directions(context: Context, stage: str, batch: int) -> Callable[[], object]:
    case, variant = layer(stage, batch, context.quick), VARIANTS[OURS]
    given = variant.cast(make_set(case, context.device), differentiable=True)
    forward = variant.forward(case, given)
    return lambda: gradients(forward(), given)()


def _measure(context: Context, item: str, call: Callable[[], object]) -> None:
    kernels = kernel_times(call, context.device)
    for kernel in kernels[:100]:  # the longest ones
        context.write("kernel", item=item, **kernel)
    us, launches = (round(sum(kernel[key] for kernel in kernels), 2) for key in ("us", "calls"))
    context.write("kernels in all", item=item, us=us, launches=launches, names=len(kernels))


def run(context: Context) -> None:
    context.needs_native()
    if context.enough_time(item := "deform_conv2d, C4, batch 8, bfloat16, forward and backward"):
        _measure(context, item, _both_directions(context, "C4", 8))
    for name in (OURS, OURS_OPTIMIZED):
        item = f"R-50-FPN inference, batch 1, CUDA graph, {name}"
        if context.enough_time(item) and (call := prepare(context, "R-50-FPN", name, INFERENCE, 1)):
            _measure(context, item, graphed(call) if context.device.type == "cuda" else call)
    item = "R-50-FPN training step, batch 8, autocast bfloat16"
    if context.enough_time(item) and (call := prepare(context, "R-50-FPN", OURS_AUTOCAST, TRAINING, 8)):
        _measure(context, item, call)


def profiled(context: Context) -> None:
    """One chunk of the stage that the step is named by, forward and backward, between the profiler's start and stop."""
    _profile(context, _both_directions(context, context.step, IMAGES[context.step]))


def profiled_fused(context: Context) -> None:
    """The same at C4, batch 8, by the fused kernels for sm_90a, which are off by default."""
    with variables(**dict.fromkeys((FORWARD, WEIGHT_GRADIENT, COLUMN_GRADIENT), "1")):
        _profile(context, _both_directions(context, "C4", 8))


def _profile(context: Context, call: Callable[[], object]) -> None:
    context.needs_native()
    call()  # libraries, workspaces and choices of algorithms are there from now on
    synchronize(context.device)
    with torch.cuda.profiler.profile() if context.device.type == "cuda" else contextlib.nullcontext():
        call()
        synchronize(context.device)
