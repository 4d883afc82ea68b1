"""The steps of a run in their order, and the seconds that each may take. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

TOTAL_SECONDS = 540  # gpu_run.sh ends everything at 550
RESERVE_SECONDS = 8  # of them at the end, for the tables


@dataclass(frozen=True)
class Step:
    """One step: a command (``build``, ``tests``, ``sanitizer``) or, with ``module``, a phase that a worker runs."""

    name: str
    title: str
    seconds: float
    module: str | None = None


STEPS = (
    Step("build", "the extension, for the GPU that is there", 80),
    Step("0", "device, clocks, versions", 30, "benchmarks.gpu.phase0_environment"),
    Step("tests", "pytest -m cuda", 80),
    Step("sanitizer", "compute-sanitizer: memcheck, racecheck", 40),
    Step("1", "ceilings", 25, "benchmarks.gpu.phase1_ceilings"),
    Step("2", "correctness", 40, "benchmarks.gpu.phase2_correctness"),
    Step("3", "peers", 55, "benchmarks.gpu.phase3_peers"),
    Step("4", "deform_conv2d beside its peers", 70, "benchmarks.gpu.phase4_ours"),
    Step("5", "time by kernel", 15, "benchmarks.gpu.phase5_kernels"),
    Step("6", "FrozenBN", 25, "benchmarks.gpu.phase6_frozen_bn"),
    Step("7", "backbones", 55, "benchmarks.gpu.phase7_backbones"),
    Step("8", "memory, and the headlines again", 15, "benchmarks.gpu.phase8_memory"),
)


def choose(only: list[str], skip: list[str], budgets: dict[str, float]) -> list[Step]:
    """The steps to run, with other budgets where asked.

    Raises:
        ValueError: for a name that is no step's.
    """
    known = [step.name for step in STEPS]
    unknown = [name for name in (*only, *skip, *budgets) if name not in known]
    if unknown:
        raise ValueError(f"no step {unknown[0]!r}; allowed are {', '.join(known)}")
    chosen = [step for step in STEPS if (not only or step.name in only) and step.name not in skip]
    return [Step(step.name, step.title, budgets.get(step.name, step.seconds), step.module) for step in chosen]
