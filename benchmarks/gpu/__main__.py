"""``python -m benchmarks.gpu``: build, first calls, tests, sanitizer and measurements, each with a deadline.

If the build, the import or a first small call of an operator fails, the run ends at once. Any other step that fails or
hangs is ended and recorded, and the next one runs. This process does not import torch, so no failure on the GPU can end
it. ``bash benchmarks/gpu_run.sh`` does the same with an outer time limit.
"""

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import tables
from benchmarks.gpu import steps
from benchmarks.gpu.processes import ROOT, SITE, Outcome, Places, Worker
from benchmarks.gpu.steps import Step
from benchmarks.records import Results, read

ENDED_EARLY = 3  # exit status where something vital has failed
GRACE_SECONDS = 6  # after the total, for the tables


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    names = ", ".join(step.name for step in steps.STEPS)
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="folder for results; default $OUT")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a dry run: no GPU results")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few repeats")
    parser.add_argument("--half", type=int, choices=steps.HALVES, help="1: ours and its ratios, 2: tests and the rest")
    parser.add_argument("--only", default="", metavar="A,B", help=f"steps to run, of {names}")
    parser.add_argument("--skip", default="", metavar="A,B", help="steps to leave out")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-build", action="store_true", help="measure the resnet_cuda that is installed")
    what.add_argument("--libraries", type=Path, metavar="DIR", help="measure this checkout with the *.so of DIR")
    parser.add_argument("--budget", action="append", default=[], metavar="STEP=SECONDS", help="a step's deadline")
    parser.add_argument("--total", type=float, help="seconds for everything; default what the steps add up to")
    chosen = parser.parse_args(arguments)
    skip = [name for name in chosen.skip.split(",") if name]
    skip += ["build"] if chosen.no_build or chosen.libraries else []
    skip += [] if chosen.libraries else ["libraries"]
    try:
        budgets = {name: float(seconds) for name, seconds in (budget.split("=") for budget in chosen.budget)}
        only = [name for name in chosen.only.split(",") if name]
        chosen.steps = steps.choose(only, skip, budgets, chosen.half)
    except ValueError as error:
        parser.error(str(error))
    if not chosen.steps:
        parser.error("no step is left to run")
    chosen.total = chosen.total or steps.total_seconds(chosen.steps)
    chosen.output = (chosen.output or ROOT / "benchmarks" / "results").resolve()
    return chosen


def run(chosen: list[Step], places: Places, results: Results, total: float) -> list[tuple[Step, Outcome]]:
    """Runs the steps in order within ``total`` seconds from now; stops if a vital step fails.

    A step may use its own budget and as much again of the time that earlier steps left unused.
    """
    until, spare = time.monotonic() + total - steps.RESERVE_SECONDS, 0.0
    common = {"device": places.device, "quick": places.quick, "results": str(results.path)}
    worker = Worker(places.output / "worker.log", places.environment(), places.imports)
    outcomes = []
    try:
        for step in chosen:
            seconds = min(step.seconds + (0.0 if step.exact else min(spare, step.seconds)), until - time.monotonic())
            if seconds < 1:
                outcome = Outcome("skipped", 0.0, "no time left")
            elif step.phase is None:
                outcome = steps.load(step.run)(places, seconds, results)  # the worker stays, idle
            else:
                outcome = worker.run(seconds, step=step.name, phase=step.phase, run=step.run, **common)
            spare = max(0.0, spare + step.seconds - outcome.seconds)
            facts = {"status": outcome.status, "seconds": round(outcome.seconds, 2), "error": outcome.error}
            results.write(kind="step", step=step.name, title=step.title, **facts)
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
    # At the outer limit's signal, and after the total, children are ended, the tables made, and this process ends.
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, chosen.total + GRACE_SECONDS)
    chosen.output.mkdir(parents=True, exist_ok=True)
    half = f"-half-{chosen.half}" if chosen.half else ""
    path = chosen.output / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{chosen.device}{half}-run.jsonl"
    results, site = Results(path, device=chosen.device, quick=chosen.quick), None if chosen.no_build else SITE
    with tempfile.TemporaryDirectory(prefix="resnet_cuda-") as folder:
        (Path(folder) / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
        places = Places(chosen.output, Path(folder), site, chosen.device, chosen.quick, chosen.libraries)
        try:
            outcomes = run(chosen.steps, places, results, chosen.total)
        finally:
            text = tables.everything(read(path) if path.exists() else [])
            path.with_suffix(".md").write_text(text, encoding="utf-8")
            print(f"\n{text}\nwritten to {path} and {path.with_suffix('.md').name}", flush=True)
    step, outcome = outcomes[-1]
    if step.vital and outcome.status != "ok":
        print(f"ended at once, {step.name} has failed: {outcome.error}", file=sys.stderr, flush=True)
        return ENDED_EARLY
    return 0 if all(outcome.status == "ok" for _, outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
