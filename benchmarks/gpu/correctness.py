"""The operators on random shapes against float64, twice, bit by bit; in float32 beside torchvision's."""

from benchmarks.cases import layer
from benchmarks.environment import describe, describe_extension
from benchmarks.gpu.cells import FLOAT32
from benchmarks.gpu.context import Context
from benchmarks.gpu.tools import DONE
from benchmarks.measure import relative_error, tf32
from benchmarks.peers.variants import errors, make_set, results
from benchmarks.random_problems import DTYPES, Problem, problems, verify
from resnet_cuda import reference


def check(context: Context, problem: Problem, runs: int = 2) -> None:
    """One record; what is wrong, or not the same to the last bit in all runs, is a failure."""
    found = verify(problem, context.device, runs)
    context.write("check", item=str(problem), **found)
    if not (found["right"] and found["same_twice"]):
        how = f"{found['worst']} off by {found['units']} units, same twice: {found['same_twice']}"
        context.failures.append(f"{problem}: {how}")


def first_calls(context: Context) -> None:
    """What is measured, on what; then a first small call of each operator, with its backward."""
    context.write("environment", **describe(context.device) | describe_extension(context.device))
    context.write_clocks()
    context.needs_native()
    with tf32(False):
        for problem in problems(6, seed=3):
            check(context, problem)
            context.check()  # at once


def sanitized(context: Context) -> None:
    """What the sanitizers run: shapes that leave partial vectors. cuBLAS' 16-bit kernels fault under racecheck."""
    context.needs_native()
    dtypes = DTYPES if context.step == "memcheck" else DTYPES[::3]  # float32, float64
    with tf32(False):
        for problem in problems(3 if context.quick else 12, seed=2, dtypes=dtypes):
            check(context, problem, runs=1)
            context.check()
            print(f"{DONE}{problem}", flush=True)


def run(context: Context) -> None:
    context.needs_native()
    done = 0
    with tf32(False):
        for problem in problems(4 if context.quick else 40, seed=1):
            if context.enough_time(f"check of {problem}", 0.25 * context.seconds):
                check(context, problem)
                done += 1
    for stage in ("C4", "C3", "C5"):
        if context.enough_time(f"large check, {stage}"):
            large(context, stage)
    context.write("checked", shapes=done, failed=len(context.failures))


def large(context: Context, stage: str) -> None:
    """A whole layer in float32: ours against torchvision's, and which is nearer to float64 on the first image?"""
    case = layer(stage, 2, context.quick)
    given = make_set(case, context.device)
    for direction in ("backward", "forward"):
        own, peer = (results(name, case, given, direction) for name in FLOAT32)
        off_by = errors(own, peer, direction)
        right, item = max(off_by.values()) <= 1e-3, f"{case.name}, {direction}, against torchvision float32"
        context.write("check", item=item, right=right, error=off_by)
        if not right:
            context.failures.append(f"{item}: {off_by}")
    arguments = [t[:1].double().cpu() for t in (given.input, given.offset, given.mask)]
    exact = reference.deform_conv2d(*arguments[:2], given.weight.double().cpu(), None, 1, 1, 1, arguments[2])
    accuracy = [relative_error(forward[0][:1].cpu(), exact) for forward in (own, peer)]
    context.write("accuracy", stage=stage, ours=accuracy[0], torchvision=accuracy[1])
