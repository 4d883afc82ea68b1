"""The steps of a run in their order, and the seconds that each may take. Nothing here needs torch.

A further measurement is one entry here: a program of ``commands.py``, or ``module:function`` for the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

RESERVE_SECONDS = 8  # at the end of a run, for the tables


@dataclass(frozen=True)
class Step:
    """One step: a command or, with ``run`` (``module:function``), what the worker runs.

    ``phase`` is what its records are found by. Where a ``vital`` step fails the run ends. An ``exact`` step takes nothing of
    what earlier steps have left of their time.
    """

    name: str
    title: str
    seconds: float
    run: str | None = None
    phase: str | None = None
    halves: tuple[int, ...] = ()
    vital: bool = False
    exact: bool = False


def _phase(name: str, title: str, seconds: float, run: str, phase: str, *halves: int, vital: bool = False) -> Step:
    return Step(name, title, seconds, f"benchmarks.gpu.{run}", phase, halves, vital)


STEPS = (
    Step("build", "the extension, for the GPU that is there", 60, halves=(1, 2), vital=True),
    Step("libraries", "libraries from another machine", 10, halves=(1, 2), vital=True),
    _phase("start", "import, first calls", 25, "phase0_start:run", "0", 1, 2, vital=True),
    _phase("correctness", "random shapes, layers", 30, "phase2_correctness:run", "2", 1),
    _phase("ours", "deform_conv2d alone, C3 to C5", 35, "phase4_ours:alone", "4", 1),
    _phase("ceilings", "copies, products, reductions", 15, "phase1_ceilings:run", "1", 1),
    Step("ncu", "counters of one chunk, C4 and C3", 60, halves=(1,), exact=True),
    _phase("kernels", "time by kernel", 20, "phase5_kernels:run", "5", 1),
    _phase("ratios", "deform_conv2d beside torchvision", 40, "phase4_ours:beside_peers", "4", 1),
    _phase("frozen_bn", "FrozenBN beside copies", 30, "phase6_frozen_bn:run", "6", 1),
    _phase("deformable", "R-50-DCN", 60, "phase7_backbones:deformable", "7", 1),
    Step("tests", "pytest -m cuda", 100, halves=(2,)),
    Step("sanitizer", "memcheck and racecheck", 45, halves=(2,)),
    _phase("variants", "float16, TF32, batch 2, other offsets", 40, "phase4_ours:variants", "4", 2),
    _phase("memory", "peak memory, headlines again", 15, "phase8_memory:run", "8", 2),
    _phase("plain", "R-50-FPN", 40, "phase7_backbones:plain", "7", 2),
    _phase("compile", "torch.compile", 30, "phase7_backbones:compiled", "7", 2),
    _phase("peers", "the peers by themselves", 55, "phase3_peers:run", "3"),
)
HALVES = (1, 2)


def choose(
    only: Sequence[str] = (), skip: Sequence[str] = (), budgets: dict[str, float] | None = None, half: int | None = None
) -> list[Step]:
    """The steps to run, with other budgets where asked. What is vital is left out only by ``skip``, the build also by ``only``.

    Raises:
        ValueError: for a name that is no step's.
    """
    budgets = budgets or {}
    known = [step.name for step in STEPS]
    unknown = [name for name in (*only, *skip, *budgets) if name not in known]
    if unknown:
        raise ValueError(f"no step {unknown[0]!r}; allowed are {', '.join(known)}")
    chosen = [
        replace(step, seconds=budgets.get(step.name, step.seconds))
        for step in STEPS
        if step.name not in skip
        and (half is None or half in step.halves)
        and (not only or step.name in only or (step.vital and step.name != "build"))
    ]
    return chosen


def total_seconds(chosen: Sequence[Step]) -> float:
    """The time for all of them and for the tables."""
    return sum(step.seconds for step in chosen) + RESERVE_SECONDS
