"""Whether this GPU does with wgmma, bulk copies and their barriers what the emulation of the tests does; and the
forward and the gradients built on them, which are off by default, beside those with columns.

In a process of its own: nothing else is built on it so far, and a kernel that hangs or faults ends nobody else.
"""

import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.cases import layer, make_deform_conv
from benchmarks.gpu.context import Context
from benchmarks.gpu.processes import Outcome, Places, run_command
from benchmarks.measure import tf32
from benchmarks.records import FIRST_CALLS, Results
from benchmarks.warpgroup_forms import FORMS, form_name, largest_error

ITEM = "warpgroup_product"
FORWARD = "RESNET_CUDA_FUSED_FORWARD"
WEIGHT_GRADIENT = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT"
COLUMN_GRADIENT = "RESNET_CUDA_FUSED_COLUMN_GRADIENT"


def step(places: Places, seconds: float, results: Results) -> Outcome:
    if places.device != "cuda":
        results.write(kind="not measured", item=ITEM, reason="it needs a GPU of compute capability 9.0")
        return Outcome("ok", 0.0)
    request = {"step": "warpgroup", "phase": FIRST_CALLS, "run": "benchmarks.gpu.warpgroup:run", "seconds": seconds}
    request |= {"device": places.device, "quick": places.quick, "results": str(results.path)}
    command = [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(request)]
    return run_command(command, seconds, places.output / "warpgroup.log", places.environment(), places.imports)


def run(context: Context) -> None:
    """Every form of operands, of one part and of nine, twice; results are exact or wrong."""
    context.needs_native()
    capability = torch.cuda.get_device_capability(context.device)
    if capability != (9, 0):
        context.not_measured(ITEM, "it needs a GPU of compute capability 9.0, this one has {}.{}".format(*capability))
        return
    product = getattr(torch.ops.resnet_cuda, ITEM)
    for depth in (64, 64 * 9):
        for form in FORMS:
            errors = [largest_error(product, form, depth, context.device) for _ in range(2)]
            item, right = f"{ITEM}, k {depth}, {form_name(form)}", errors == [0.0, 0.0]
            context.write("check", item=item, right=right, error=max(errors))
            print(f"{'right' if right else 'WRONG'} {item}: off by {errors}", flush=True)
            if not right:
                context.failures.append(f"{item}: off by {errors}")
    context.check()  # nothing is built on what is wrong
    for stage in ("C4", "C3", "C5"):
        for batch in (1, 8):
            if context.enough_time(f"fused forward, {stage}, batch {batch}"):
                fused(context, stage, batch)
            if context.enough_time(f"fused gradient for the weight, {stage}, batch {batch}"):
                fused_weight_gradient(context, stage, batch)
            if context.enough_time(f"fused columns' gradient, {stage}, batch {batch}"):
                column_gradient(context, stage, batch)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _microseconds(call: Callable[[], object]) -> float:
    """Of a call, the median of seven blocks of ten, between device events."""
    times = []
    for _ in range(8):  # the first one warms up
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(10):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 100)
    return statistics.median(times[1:])


def fused(context: Context, stage: str, batch: int) -> None:
    """bfloat16: the same bits twice, and no further from float32 than the forward with columns."""
    case = layer(stage, batch, context.quick)
    given = make_deform_conv(case, context.device, torch.bfloat16, True, offset_pixels=2.0)

    def call(dtype: torch.dtype = torch.bfloat16) -> Tensor:
        tensors = (one.to(dtype) for one in (given.input, given.weight, given.offset, given.mask))
        return torch.ops.resnet_cuda.deform_conv2d(*tensors, None, 1, 1, 1, 1, 1, 1)

    _compare(context, "fused forward", case.name, FORWARD, call)


def fused_weight_gradient(context: Context, stage: str, batch: int) -> None:
    """bfloat16: the same bits twice, and no further from float32 than the gradient for the weight from columns; then
    the time of all gradients."""
    case = layer(stage, batch, context.quick)
    given = make_deform_conv(case, context.device, torch.bfloat16, True, offset_pixels=2.0)

    def call(dtype: torch.dtype = torch.bfloat16, others: bool = False) -> Tensor:
        tensors = (one.to(dtype) for one in (given.grad, given.input, given.weight, given.offset, given.mask))
        needs = (others, True, others, others, others)
        return torch.ops.resnet_cuda.deform_conv2d_backward(*tensors, 1, 1, 1, 1, 1, 1, *needs)[1]

    _compare(context, "fused gradient for the weight", case.name, WEIGHT_GRADIENT, call)
    times = {}
    for name, value in (("fused_us", "require"), ("columns_us", "0")):
        with _variable(WEIGHT_GRADIENT, value):
            times[name] = _microseconds(lambda: call(others=True))
    context.write("backward", item=f"backward with a fused gradient for the weight, {case.name}", **times)


def _compare(context: Context, what: str, case: str, variable: str, call: Callable[..., Tensor]) -> None:
    """The result and the time of ``call``, fused and by columns; its argument is a dtype."""
    with _variable(variable, "0"), tf32(False):
        exact, columns, columns_us = call(torch.float32), call(), _microseconds(call)
    with _variable(variable, "require"):
        ours, again, fused_us = call(), call(), _microseconds(call)
    size = exact.square().mean().sqrt()
    own, other = (((found - exact).square().mean().sqrt() / size).item() for found in (ours, columns))
    right, item = torch.equal(ours, again) and own <= 1.02 * other, f"{what}, {case}"
    context.write("check", item=item, right=right, same_twice=torch.equal(ours, again), error=own, by_columns=other)
    context.write(what, item=item, fused_us=fused_us, columns_us=columns_us)
    if not right:
        context.failures.append(f"{item}: off by {own}, by columns {other}, same twice: {torch.equal(ours, again)}")


def column_gradient(context: Context, stage: str, batch: int) -> None:
    """bfloat16, all gradients: the same bits twice, and no further from float32 than without the fused kernel."""
    case = layer(stage, batch, context.quick)
    given = make_deform_conv(case, context.device, torch.bfloat16, True, offset_pixels=2.0)

    def call(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
        tensors = (one.to(dtype) for one in (given.grad, given.input, given.weight, given.offset, given.mask))
        return torch.ops.resnet_cuda.deform_conv2d_backward(*tensors, 1, 1, 1, 1, 1, 1, *[True] * 5)

    with _variable(COLUMN_GRADIENT, "0"), tf32(False):
        exact, plain, plain_us = call(torch.float32), call(), _microseconds(call)
    with _variable(COLUMN_GRADIENT, "require"):
        ours, again, fused_us = call(), call(), _microseconds(call)
    item = f"fused columns' gradient, {case.name}"
    same = all(map(torch.equal, ours, again))
    errors = {}
    for name, truth, *found in zip(("input", "weight", "offset", "mask", "bias"), exact, ours, plain, strict=True):
        size = truth.square().mean().sqrt()
        errors[name] = [((one - truth).square().mean().sqrt() / size).item() for one in found]
    right = same and all(own <= 1.02 * other for own, other in errors.values())
    context.write("check", item=item, right=right, same_twice=same, errors=errors)
    context.write("fused columns' gradient", item=item, fused_us=fused_us, plain_us=plain_us)
    if not right:
        context.failures.append(f"{item}: off by {errors}, same twice: {same}")
