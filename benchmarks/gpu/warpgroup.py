"""Checks wgmma, bulk copies and their barriers on this GPU against exact results, as in the tests' emulation, and
compares the fused forward and gradients, which are built on them and off by default, with those by columns.

Runs in its own process, so that a kernel that hangs or faults ends nothing else.
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
from benchmarks.measure import graphed, tf32
from benchmarks.records import FIRST_CALLS, Results
from benchmarks.warpgroup_forms import FORMS, form_name, largest_error, rounding_error

ITEM = "warpgroup_product"
FORWARD = "RESNET_CUDA_FUSED_FORWARD"
TILES = "RESNET_CUDA_FUSED_TILES"
# Beside those that the forward chooses.
_ROLES = ("128x256x1", "128x128x1", "64x128x1", "64x128x2", "64x128x3")
OTHER_TILES = (*_ROLES, *(f"{tiles}u" for tiles in _ROLES))
WEIGHT_GRADIENT = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT"
WEIGHT_GRADIENT_KERNEL = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT_KERNEL"
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
    error = rounding_error(product, context.device)
    context.write("check", item=f"{ITEM}, rounding to TF32", right=error == 0, error=error)
    if error != 0:
        context.failures.append(f"{ITEM}, rounding to TF32: off by {error}")
    context.check()  # nothing is built on what is wrong
    for stage in ("C4", "C3", "C5"):
        for batch in (1, 2, 8):
            for dtype in (torch.bfloat16, torch.float32):
                if context.enough_time(f"fused forward, {stage}, batch {batch}, {dtype}"):
                    fused(context, stage, batch, dtype)
            if batch == 2:
                continue
            for kernel in ("roles", "uniform"):
                if context.enough_time(f"fused gradient for the weight, {stage}, batch {batch}, {kernel}"):
                    fused_weight_gradient(context, stage, batch, kernel)
            if context.enough_time(f"fused columns' gradient, {stage}, batch {batch}"):
                column_gradient(context, stage, batch)


@contextlib.contextmanager
def variables(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _microseconds(call: Callable[[], object]) -> float:
    """Of a call, the median of seven replays of a CUDA graph of ten: an eager call of batch 1 takes the host longer."""
    times = []
    replay = graphed(lambda: [call() for _ in range(10)])
    for _ in range(8):  # the first one warms up
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 100)
    return statistics.median(times[1:])


def fused(context: Context, stage: str, batch: int, dtype: torch.dtype) -> None:
    """The same bits twice, and no further from float32 than the forward with columns; by all tiles. float32 in TF32."""
    case = layer(stage, batch, context.quick)
    given = make_deform_conv(case, context.device, dtype, True, offset_pixels=2.0)

    def call(dtype: torch.dtype = dtype) -> Tensor:
        tensors = (one.to(dtype) for one in (given.input, given.weight, given.offset, given.mask))
        return torch.ops.resnet_cuda.deform_conv2d(*tensors, None, 1, 1, 1, 1, 1, 1)

    with variables(**{FORWARD: "0"}), tf32(False):
        exact = [call(torch.float32)]
    with variables(**{FORWARD: "0"}), tf32(True):
        columns, columns_us = [call()], _microseconds(call)
    for tiles in ("", *OTHER_TILES):
        with variables(**{FORWARD: "require-tf32", TILES: tiles}):
            ours, again, fused_us = [call()], [call()], _microseconds(call)
        item = f"fused forward, {case.name}, {dtype}, {tiles or 'its own tiles'}"
        _check(context, item, ["output"], exact, (ours, again), columns)
        context.write("fused forward", item=item, fused_us=fused_us, columns_us=columns_us)


def fused_weight_gradient(context: Context, stage: str, batch: int, kernel: str) -> None:
    """bfloat16: the same bits twice, and no further from float32 than the gradient for the weight from columns; then
    the time of all gradients."""
    with variables(**{WEIGHT_GRADIENT_KERNEL: kernel}):
        what, variant = "fused gradient for the weight", ", uniform kernel" if kernel == "uniform" else ""
        _compare_gradients(context, what, stage, batch, WEIGHT_GRADIENT, variant, only_weight=True)


def column_gradient(context: Context, stage: str, batch: int) -> None:
    """bfloat16, all gradients: the same bits twice, and no further from float32 than without the fused kernel."""
    _compare_gradients(context, "fused columns' gradient", stage, batch, COLUMN_GRADIENT, "", only_weight=False)


def _compare_gradients(
    context: Context, what: str, stage: str, batch: int, variable: str, variant: str, only_weight: bool
) -> None:
    """The values of the gradients that the fused kernel changes, and the time of the weight's alone and of all."""
    case = layer(stage, batch, context.quick)
    given = make_deform_conv(case, context.device, torch.bfloat16, True, offset_pixels=2.0)

    def call(others: bool, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor | None, ...]:
        tensors = (one.to(dtype) for one in (given.grad, given.input, given.weight, given.offset, given.mask))
        needs = (others, True, others, others, others)
        return torch.ops.resnet_cuda.deform_conv2d_backward(*tensors, 1, 1, 1, 1, 1, 1, *needs)

    def values(dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
        gradients = call(not only_weight, dtype)
        return [gradients[1]] if only_weight else list(gradients)

    names = ["weight"] if only_weight else ["input", "weight", "offset", "mask", "bias"]
    item = f"{what}, {case.name}{variant}"
    times = {}
    with variables(**{variable: "0"}), tf32(False):
        exact, columns = values(torch.float32), values()
        times |= {"columns_us": _microseconds(values), "columns_all_us": _microseconds(lambda: call(True))}
    with variables(**{variable: "require"}):
        found = values(), values()
        times |= {"fused_us": _microseconds(values), "fused_all_us": _microseconds(lambda: call(True))}
    _check(context, item, names, exact, found, columns)
    context.write(what, item=item, **times)


def _check(
    context: Context,
    item: str,
    names: list[str],
    exact: list[Tensor],
    found: tuple[list[Tensor], list[Tensor]],
    columns: list[Tensor],
) -> None:
    """Fails where two calls gave different bits, or errors larger than those by columns."""
    same = all(map(torch.equal, *found))
    errors = {}
    for name, truth, *results in zip(names, exact, found[0], columns, strict=True):
        size = truth.square().mean().sqrt()
        errors[name] = [((one - truth).square().mean().sqrt() / size).item() for one in results]
    right = same and all(own <= 1.02 * other for own, other in errors.values())
    context.write("check", item=item, right=right, same_twice=same, errors=errors)
    if not right:
        context.failures.append(f"{item}: off by {errors} (fused, by columns), same twice: {same}")
