"""The steps of a run in their order, and the seconds that each may take. Nothing here needs torch."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import records

RESERVE_SECONDS = 8  # at the end of a run, for the tables
HALVES = (1, 2)


@dataclass(frozen=True)
class Step:
    """``run`` is ``module:function``. A step with a ``phase`` is called in the worker process with a Context; any other
    step in this process with places, seconds and results.

    Every record of the step has its ``phase``, by which the tables select. If a ``vital`` step fails, the run ends. An
    ``exact`` step uses none of the time that earlier steps left unused.
    """

    name: str
    title: str
    seconds: float
    run: str
    phase: str | None = None
    halves: tuple[int, ...] = ()
    vital: bool = False
    exact: bool = False


def load(run: str) -> Callable:
    module, _, function = run.partition(":")
    return getattr(importlib.import_module(module), function)


_CELLS = "benchmarks.gpu.cells:run"
STEPS = (
    Step("build", "the extension, for the GPU that is there", 60, "benchmarks.gpu.building:build", None, (1, 2), True),
    Step("libraries", "libraries from another machine", 10, "benchmarks.gpu.building:libraries", None, (1, 2), True),
    Step("start", "first calls", 25, "benchmarks.gpu.correctness:first_calls", records.FIRST_CALLS, (1, 2), True),
    Step("warpgroup", "wgmma, fused kernels", 28, "benchmarks.gpu.warpgroup:step", None, (1,), exact=True),
    Step("correctness", "random shapes, layers", 30, "benchmarks.gpu.correctness:run", records.CORRECTNESS, (1,)),
    Step("ours", "deform_conv2d alone, C3 to C5", 35, _CELLS, records.DEFORM_CONV, (1,)),
    Step("ceilings", "copies, products, reductions", 15, "benchmarks.gpu.ceilings:run", records.CEILINGS, (1,)),
    Step("ncu", "counters of one chunk; fused kernels", 75, "benchmarks.gpu.tools:ncu", None, (1,), exact=True),
    Step("kernels", "time by kernel", 25, "benchmarks.gpu.kernels:run", records.KERNELS, (1,)),
    Step("ratios", "deform_conv2d beside torchvision", 40, _CELLS, records.DEFORM_CONV, (1,)),
    Step("frozen_bn", "FrozenBN beside copies", 30, _CELLS, records.FROZEN_BN, (1,)),
    Step("deformable", "R-50-DCN", 45, _CELLS, records.BACKBONES, (1,)),
    Step("host", "CPU time per call", 8, "benchmarks.gpu.host:run", records.HOST),
    Step("tests", "pytest -m cuda", 100, "benchmarks.gpu.tools:tests", None, (2,)),
    Step("sanitizer", "memcheck and racecheck", 45, "benchmarks.gpu.tools:sanitizer", None, (2,)),
    Step("variants", "float16, TF32, batch 2, other offsets", 40, _CELLS, records.DEFORM_CONV, (2,)),
    Step("memory", "peak memory, some times once more", 15, "benchmarks.gpu.memory:run", records.MEMORY, (2,)),
    Step("plain", "R-50-FPN", 40, _CELLS, records.BACKBONES, (2,)),
    Step("compile", "torch.compile", 30, _CELLS, records.BACKBONES, (2,)),
    Step("optimized", "optimize_for_inference", 45, _CELLS, records.BACKBONES),
    Step("autotune", "torch.compile, max-autotune", 240, _CELLS, records.BACKBONES, exact=True),
    Step("peers", "the peers by themselves", 55, _CELLS, records.PEERS),
)


def choose(
    only: Sequence[str] = (), skip: Sequence[str] = (), budgets: dict[str, float] | None = None, half: int | None = None
) -> list[Step]:
    """The steps to run. Vital steps are left out only by ``skip``, the build also by ``only``.

    Raises:
        ValueError: for an unknown step.
    """
    budgets = budgets or {}
    known = [step.name for step in STEPS]
    unknown = [name for name in (*only, *skip, *budgets) if name not in known]
    if unknown:
        raise ValueError(f"no step {unknown[0]!r}; allowed are {', '.join(known)}")
    return [
        replace(step, seconds=budgets.get(step.name, step.seconds))
        for step in STEPS
        if step.name not in skip
        and (half is None or half in step.halves)
        and (not only or step.name in only or (step.vital and step.name != "build"))
    ]


def total_seconds(chosen: Sequence[Step]) -> float:
    """The time for all of them and for the tables."""
    return sum(step.seconds for step in chosen) + RESERVE_SECONDS
