"""``python -m benchmarks.gpu``: build, tests, sanitizer and the phases of one GPU run, each below a deadline.

A step that fails or hangs is cut, recorded and followed by the next one. This process imports no torch: nothing that
happens on the GPU can take it along. ``bash benchmarks/gpu_run.sh`` is the same with an outer limit.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu import steps, tables
from benchmarks.gpu.commands import COMMANDS, ROOT, Places
from benchmarks.gpu.processes import Outcome, Worker
from benchmarks.gpu.records import Results, read
from benchmarks.gpu.steps import Step


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    names = ", ".join(step.name for step in steps.STEPS)
    parser.add_argument(
        "--output", type=Path, default=os.environ.get("OUT"), help="folder for all results; default $OUT"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a dry run: no GPU results")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few repeats")
    parser.add_argument("--only", default="", metavar="A,B", help=f"steps to run, of {names}")
    parser.add_argument("--skip", default="", metavar="A,B", help="steps to leave out")
    parser.add_argument("--no-build", action="store_true", help="measure the resnet_cuda that is importable already")
    parser.add_argument(
        "--budget", action="append", default=[], metavar="STEP=SECONDS", help="another deadline for a step"
    )
    parser.add_argument("--total", type=float, default=steps.TOTAL_SECONDS, help="seconds for everything")
    chosen = parser.parse_args(arguments)
    skip = [name for name in chosen.skip.split(",") if name]
    if chosen.no_build:
        skip.append("build")
    try:
        budgets = {name: float(seconds) for name, seconds in (budget.split("=") for budget in chosen.budget)}
        chosen.steps = steps.choose([name for name in chosen.only.split(",") if name], skip, budgets)
    except ValueError as error:
        parser.error(str(error))
    chosen.output = (chosen.output or ROOT / "benchmarks" / "results").resolve()
    return chosen


def run(chosen: list[Step], places: Places, results: Results, total: float) -> list[tuple[Step, Outcome]]:
    """Runs the steps in their order, all within ``total`` seconds from now.

    A step may take its own budget and as much again of what earlier steps have left of theirs.
    """
    until, spare = time.monotonic() + total - steps.RESERVE_SECONDS, 0.0
    arguments = ["--device", places.device, "--output", str(results.path), *(["--quick"] if places.quick else [])]
    worker = Worker(arguments, places.output / "phases.log", places.environment(), places.output)
    outcomes = []
    try:
        for step in chosen:
            seconds = min(step.seconds + min(spare, step.seconds), until - time.monotonic())
            if seconds < 1:
                outcome = Outcome("skipped", 0.0, "no time left")
            elif step.module is None:
                worker.stop()  # a program on the same GPU beside it would disturb both
                outcome = COMMANDS[step.name](places, seconds, results)
            else:
                outcome = worker.run(step.name, step.module, seconds)
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
            print(f"{step.name:>10} {step.title:<42} {outcome.status:<8}{outcome.seconds:7.1f} s{note}", flush=True)
            outcomes.append((step, outcome))
    finally:
        worker.stop()
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    # The outer limit's signal: children are ended and the tables made, then this process goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen.output.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    results = Results(chosen.output / f"{stamp}-{chosen.device}-run.jsonl", device=chosen.device, quick=chosen.quick)
    site = None if chosen.no_build else ROOT / "build" / "gpu_run"
    outcomes: list[tuple[Step, Outcome]] = []
    try:
        outcomes = run(chosen.steps, Places(chosen.output, site, chosen.device, chosen.quick), results, chosen.total)
    finally:
        text = tables.everything(read(results.path))
        results.path.with_suffix(".md").write_text(text)
        print(f"\n{text}\nwritten to {results.path} and {results.path.with_suffix('.md').name}", flush=True)
    return 0 if all(outcome.status == "ok" for _, outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
