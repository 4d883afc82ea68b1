"""``python -m benchmarks.gpu``: build, first calls, tests, sanitizer and the phases of one GPU run, each below a deadline.

Where the build, the import or a first small call of an operator fails, the run ends at once: there is nothing to measure.
Any other step that fails or hangs is cut, recorded and followed by the next one. This process imports no torch: nothing
that happens on the GPU can take it along. ``bash benchmarks/gpu_run.sh`` is the same with an outer limit.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import steps, tables
from benchmarks.gpu.commands import COMMANDS
from benchmarks.gpu.places import ROOT, SITE, Places, link_benchmarks
from benchmarks.gpu.processes import Outcome, Worker
from benchmarks.gpu.records import Results, read
from benchmarks.gpu.steps import Step

ENDED_EARLY = 3  # exit status where something vital has failed
GRACE_SECONDS = 6  # behind the total, for the tables


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    names = ", ".join(step.name for step in steps.STEPS)
    parser.add_argument(
        "--output", type=Path, default=os.environ.get("OUT"), help="folder for all results; default $OUT"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a dry run: no GPU results")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few repeats")
    parser.add_argument("--half", type=int, choices=steps.HALVES, help="1: ours and its ratios, 2: tests and the rest")
    parser.add_argument("--only", default="", metavar="A,B", help=f"steps to run, of {names}")
    parser.add_argument("--skip", default="", metavar="A,B", help="steps to leave out")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-build", action="store_true", help="measure the resnet_cuda that is installed")
    what.add_argument(
        "--libraries", type=Path, metavar="DIR", help="measure this checkout with DIR's _C*.so and _cuda_kernels.so"
    )
    parser.add_argument(
        "--budget", action="append", default=[], metavar="STEP=SECONDS", help="another deadline for a step"
    )
    parser.add_argument("--total", type=float, help="seconds for everything; default what the steps add up to")
    chosen = parser.parse_args(arguments)
    skip = [name for name in chosen.skip.split(",") if name]
    only = [name for name in chosen.only.split(",") if name]
    if chosen.no_build or chosen.libraries:
        skip.append("build")
    if not chosen.libraries:
        skip.append("libraries")
    try:
        budgets = {name: float(seconds) for name, seconds in (budget.split("=") for budget in chosen.budget)}
        chosen.steps = steps.choose(only, skip, budgets, chosen.half)
    except ValueError as error:
        parser.error(str(error))
    if not chosen.steps:
        parser.error("no step is left to run")
    chosen.total = chosen.total or steps.total_seconds(chosen.steps)
    chosen.output = (chosen.output or ROOT / "benchmarks" / "results").resolve()
    return chosen


def run(chosen: list[Step], places: Places, results: Results, total: float) -> list[tuple[Step, Outcome]]:
    """Runs the steps in their order, all within ``total`` seconds from now, up to a vital one that fails.

    A step may take its own budget and as much again of what earlier steps have left of theirs.
    """
    until, spare = time.monotonic() + total - steps.RESERVE_SECONDS, 0.0
    arguments = ["--device", places.device, "--output", str(results.path), *(["--quick"] if places.quick else [])]
    worker = Worker(arguments, places.output / "phases.log", places.environment(), places.imports)
    outcomes = []
    try:
        for step in chosen:
            seconds = min(step.seconds + (0.0 if step.exact else min(spare, step.seconds)), until - time.monotonic())
            if seconds < 1:
                outcome = Outcome("skipped", 0.0, "no time left")
            elif step.run is None:
                # The worker stays: it is idle and holds little, and its next phase need not import everything again.
                outcome = COMMANDS[step.name](places, seconds, results)
            else:
                outcome = worker.run(step.phase or step.name, step.run, seconds)
            spare = max(0.0, spare + step.seconds - outcome.seconds)
            results.write(
                kind="step",
                step=step.name,
                title=step.title,
                status=outcome.status,
                seconds=round(outcome.seconds, 2),
                error=outcome.error,
            )
            note = f": {outcome.error}" if outcome.error else ""
            print(f"{step.name:>12} {step.title:<38} {outcome.status:<8}{outcome.seconds:7.1f} s{note}", flush=True)
            outcomes.append((step, outcome))
            if step.vital and outcome.status != "ok":
                results.write(kind="ended", step=step.name, reason=outcome.error)
                break
    finally:
        worker.stop()
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    # At the outer limit's signal, and behind the total, children are ended and the tables made, then this process goes.
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, chosen.total + GRACE_SECONDS)
    chosen.output.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    half = f"-half-{chosen.half}" if chosen.half else ""
    path = chosen.output / f"{stamp}-{chosen.device}{half}-run.jsonl"
    results = Results(path, device=chosen.device, quick=chosen.quick)
    site = None if chosen.no_build else SITE
    outcomes: list[tuple[Step, Outcome]] = []
    with tempfile.TemporaryDirectory(prefix="resnet_cuda-") as folder:
        imports = link_benchmarks(Path(folder))
        places = Places(chosen.output, imports, site, chosen.device, chosen.quick, chosen.libraries)
        try:
            outcomes = run(chosen.steps, places, results, chosen.total)
        finally:
            text = tables.everything(read(path))
            path.with_suffix(".md").write_text(text)
            print(f"\n{text}\nwritten to {path} and {path.with_suffix('.md').name}", flush=True)
    step, outcome = outcomes[-1]
    if step.vital and outcome.status != "ok":
        print(f"ended at once, {step.name} has failed: {outcome.error}", file=sys.stderr, flush=True)
        return ENDED_EARLY
    return 0 if all(outcome.status == "ok" for _, outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
