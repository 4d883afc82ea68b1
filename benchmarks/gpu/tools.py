"""NVIDIA's tools around small programs of ours, each below its deadline. Nothing here needs torch."""

from __future__ import annotations

import csv
import re
import shutil
import sys
import time
from pathlib import Path

from benchmarks.gpu.places import Places
from benchmarks.gpu.processes import Outcome, run_command, run_commands
from benchmarks.gpu.records import Results

SANITIZERS = {"memcheck": r"ERROR SUMMARY: 0 errors", "racecheck": r"RACECHECK SUMMARY: 0 hazards displayed"}
DONE = "done: "  # what ``sanitized`` prints before each shape that was right
SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")
PROFILED = ("C4", "C3")
# ncu's names in the raw page: ours. What a version does not have is left out.
METRICS = {
    "gpu__time_duration.sum": "us",
    "launch__grid_size": "grid",
    "launch__registers_per_thread": "registers",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent",
    "l1tex__throughput.avg.pct_of_peak_sustained_active": "l1_percent",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "l2_percent",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent",
    "l1tex__t_sector_hit_rate.pct": "l1_hit_percent",
    "lts__t_sector_hit_rate.pct": "l2_hit_percent",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps_percent",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": "stall_long_scoreboard",
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": "stall_barrier",
    "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio": "stall_math_pipe",
    "smsp__average_warps_issue_stalled_lg_throttle_per_issue_active.ratio": "stall_lg_throttle",
    "smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio": "stall_mio_throttle",
    "smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio": "stall_short_scoreboard",
}
MICROSECONDS = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3}


def find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def _program(places: Places, module: str) -> list[str]:
    quick = ["--quick"] if places.quick else []
    return [sys.executable, "-m", f"benchmarks.gpu.{module}", "--device", places.device, *quick]


def _without(tool: str, places: Places, seconds: float, results: Results, module: str) -> Outcome:
    """The program alone, where it can run at all: a dry run then says whether it works."""
    reason = f"there is no {tool}" if places.device == "cuda" else "it needs a GPU"
    results.write(kind="not measured", item=tool, reason=reason)
    if places.device == "cuda" and module == "profiled":
        return Outcome("ok", 0.0)
    return run_command(
        _program(places, module), seconds, places.output / f"{tool}.log", places.environment(), places.imports
    )


def sanitizer(places: Places, seconds: float, results: Results) -> Outcome:
    """memcheck and racecheck, at the same time, over small shapes, our kernels only."""
    tool, begin = find("compute-sanitizer"), time.monotonic()
    if places.device != "cuda" or tool is None:
        return _without("compute-sanitizer", places, seconds, results, "sanitized")
    # Each tensor gets an allocation of its own: an access behind its end is then no access to a neighbour.
    environment = {**places.environment(), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

    logs = {name: places.output / f"{name}.log" for name in SANITIZERS}
    commands = []
    for name, log in logs.items():
        log.unlink(missing_ok=True)
        options = ["--tool", name, "--kernel-name", "kns=resnet_cuda", "--error-exitcode", "9"]
        commands.append(([tool, *options, *_program(places, "sanitized")], log))
    worst = Outcome("ok", 0.0)
    for name, outcome in zip(SANITIZERS, run_commands(commands, seconds, environment, places.imports), strict=True):
        text = logs[name].read_text(errors="replace")
        clean = outcome.status == "ok" and re.search(SANITIZERS[name], text) is not None
        results.write(
            kind="sanitizer",
            item=name,
            clean=clean,
            verdict="no verdict" if outcome.status == "timeout" else "clean" if clean else "not clean",
            shapes=len(re.findall(rf"^{DONE}", text, re.MULTILINE)),
            summary=re.findall(r"^========= (.*SUMMARY.*)$", text, re.MULTILINE)[-1:],
            error=outcome.error,
        )
        if not clean and worst.status != "error":
            error = f"{name}: {outcome.error or 'its summary is not that of a clean run'}"
            worst = Outcome("timeout" if outcome.status == "timeout" else "error", 0.0, error)
    return Outcome(worst.status, time.monotonic() - begin, worst.error)


def ncu(places: Places, seconds: float, results: Results) -> Outcome:
    """One chunk of a forward and a backward at C4, then C3, every kernel of it, those of cuBLAS too; caches as they are."""
    tool, begin = find("ncu"), time.monotonic()
    if places.device != "cuda" or tool is None:
        return _without("ncu", places, seconds, results, "profiled")
    worst = Outcome("ok", 0.0)
    for index, stage in enumerate(PROFILED):
        left = (seconds - (time.monotonic() - begin)) / (len(PROFILED) - index)
        table, log = places.output / f"ncu-{stage}.csv", places.output / "ncu.log"
        table.unlink(missing_ok=True)
        command = [tool, "--profile-from-start", "off", "--cache-control", "none", "--csv", "--page", "raw"]
        command += [option for section in SECTIONS for option in ("--section", section)]
        command += ["--log-file", str(table), *_program(places, "profiled"), "--stage", stage]
        outcome = run_command(command, left, log, places.environment(), places.imports)
        kernels = read_table(table)
        for kernel in kernels:
            results.write(kind="ncu", stage=stage, **kernel)
        if outcome.status != "ok" or not kernels:
            said = re.findall(r"^==ERROR== (.*)$", table.read_text(errors="replace") if table.exists() else "", re.M)
            error = said[0] if said else outcome.error or "ncu has written no kernel"
            results.write(kind="not measured", item=f"ncu, {stage}", reason=error)
            worst = Outcome("error" if outcome.status == "ok" else outcome.status, 0.0, f"{stage}: {error}")
            if said:  # no permission, say: the next stage would end in the same way
                break
    return Outcome(worst.status, time.monotonic() - begin, worst.error)


def read_table(path: Path) -> list[dict[str, object]]:
    """The kernels of ncu's raw CSV page; its second line holds the units. Other lines (``==PROF==``) are passed over."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if len(rows) < 2:
        return []
    units, kernels = rows[0], []
    for row in rows[1:]:
        kernel: dict[str, object] = {"name": (row.get("Kernel Name") or "")[:300]}
        for metric, label in METRICS.items():
            try:
                value = float((row.get(metric) or "").replace(",", ""))
            except ValueError:
                continue
            kernel[label] = round(value * MICROSECONDS.get(units.get(metric) or "", 1.0), 4) if label == "us" else value
        kernels.append(kernel)
    return kernels
