"""Steps that are programs: pytest, and NVIDIA's tools around a step of ours. Nothing here needs torch."""

import csv
import importlib.util
import json
import os
import re
import shutil
import sys
import time

from benchmarks.gpu.processes import ROOT, Outcome, Places, run_command, run_commands
from benchmarks.records import Results

FOLDERS = ("cuda", "ops", "layers")
WORDS = ("PASSED", "FAILED", "ERROR", "SKIPPED")
SANITIZERS = {"memcheck": r"ERROR SUMMARY: 0 errors", "racecheck": r"RACECHECK SUMMARY: 0 hazards displayed"}
SANITIZED = "correctness:sanitized"
DONE = "done: "  # what is printed before each shape that was right
# By what ncu is asked for: a function of kernels.py. The fused kernels are those of sm_90a.
PROFILED = {"C4": "profiled", "C3": "profiled", "C4 fused": "profiled_fused"}
SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")
# What is kept of ncu's raw page: time, launch, throughputs, hit rates, warps, reasons of stalls.
METRICS = (
    r"gpu__time_duration|launch__|throughput\.avg\.pct|hit_rate|sm__warps_active|issue_stalled_\w+_per_issue_active"
)


def tests(places: Places, seconds: float, results: Results) -> Outcome:
    """All tests for a GPU, in six processes where pytest-xdist is there; a dry run only collects them."""
    folders = [str(ROOT / "tests" / name) for name in FOLDERS if (ROOT / "tests" / name).is_dir()]
    if not folders:
        return Outcome("error", 0.0, "this checkout has no tests/")
    log, dry = places.output / "tests.log", places.device != "cuda"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["--collect-only"] if dry else parallel()
    outcome = run_command([*command, *folders], seconds, log, places.environment(), places.imports)
    counts = counted(log.read_text(encoding="utf-8", errors="replace"))
    results.write(kind="tests", collected_only=dry, whole=outcome.status != "timeout", **counts)
    if outcome.status == "ok" and not dry and not counts["passed"]:
        return Outcome("error", outcome.seconds, "no test has passed")
    return outcome


def parallel() -> list[str]:
    """pytest-xdist's options, if it is installed. Tests differ in length: a process that is done takes others'."""
    return ["-n", "6", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []


def counted(log: str) -> dict[str, object]:
    """From ``pytest -v``'s lines, with xdist's ("[gw0] [ 1%] PASSED name") or without ("name PASSED [ 1%]")."""
    found = re.findall(rf"^\[gw\d+\] \[ *\d+%\] ({'|'.join(WORDS)}) (\S+)", log, re.MULTILINE)
    found += [pair[::-1] for pair in re.findall(rf"^(\S+::.*?) ({'|'.join(WORDS)})\b", log, re.MULTILINE)]
    counts = {word.lower(): sum(one == word for one, _ in found) for word in WORDS}
    return counts | {"failures": [name for word, name in found if word in ("FAILED", "ERROR")][:50]}


def find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def _program(places: Places, run: str, step: str) -> list[str]:
    """A process of its own for a function that takes a Context."""
    request = {"step": step, "phase": None, "run": f"benchmarks.gpu.{run}", "seconds": 600, "results": os.devnull}
    request |= {"device": places.device, "quick": places.quick}
    return [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(request)]


def _without(tool: str, places: Places, seconds: float, results: Results, *program: str) -> Outcome:
    """The program alone, so that a dry run says whether it works."""
    reason = f"there is no {tool}" if places.device == "cuda" else "it needs a GPU"
    results.write(kind="not measured", item=tool, reason=reason)
    log = places.output / f"{tool}.log"
    return run_command(_program(places, *program), seconds, log, places.environment(), places.imports)


def sanitizer(places: Places, seconds: float, results: Results) -> Outcome:
    """memcheck and racecheck, at the same time, over small shapes, our kernels only."""
    tool, begin = find("compute-sanitizer"), time.monotonic()
    if places.device != "cuda" or tool is None:
        return _without("compute-sanitizer", places, seconds, results, SANITIZED, "memcheck")
    # Each tensor gets an allocation of its own: an access past its end is then no access to a neighbour.
    environment = {**places.environment(), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    ours = ["--kernel-name", "kns=resnet_cuda", "--error-exitcode", "9"]
    logs = {name: places.output / f"{name}.log" for name in SANITIZERS}
    for log in logs.values():
        log.unlink(missing_ok=True)
    commands = [([tool, "--tool", name, *ours, *_program(places, SANITIZED, name)], log) for name, log in logs.items()]
    failures = {}
    for name, outcome in zip(logs, run_commands(commands, seconds, environment, places.imports), strict=True):
        text = logs[name].read_text(encoding="utf-8", errors="replace")
        clean = outcome.status == "ok" and re.search(SANITIZERS[name], text) is not None
        verdict = "no verdict" if outcome.status == "timeout" else "clean" if clean else "not clean"
        facts = {"clean": clean, "verdict": verdict, "shapes": len(re.findall(rf"^{DONE}", text, re.MULTILINE))}
        summary = re.findall(r"^========= (.*SUMMARY.*)$", text, re.MULTILINE)[-1:]
        results.write(kind="sanitizer", item=name, **facts, summary=summary, error=outcome.error)
        if not clean:
            error = f"{name}: {outcome.error or 'its summary is not that of a clean run'}"
            failures.setdefault("timeout" if outcome.status == "timeout" else "error", error)
    status = min(failures, default="ok")  # an error before a timeout
    return Outcome(status, time.monotonic() - begin, failures.get(status))


def ncu(places: Places, seconds: float, results: Results) -> Outcome:
    """Every kernel, forward and backward, of one chunk at C4, then at C3, then at C4 of the fused kernels, batch 8.

    Caches are left as they are.
    """
    tool, begin = find("ncu"), time.monotonic()
    if places.device != "cuda" or tool is None:
        return _without("ncu", places, seconds, results, "kernels:profiled", "C4")
    status, error = "ok", None
    for index, (stage, profiled) in enumerate(PROFILED.items()):
        left = (seconds - (time.monotonic() - begin)) / (len(PROFILED) - index)
        table, log = places.output / f"ncu-{stage.replace(' ', '-')}.csv", places.output / "ncu.log"
        table.unlink(missing_ok=True)
        command = [tool, "--profile-from-start", "off", "--cache-control", "none", "--csv", "--page", "raw"]
        command += [option for section in SECTIONS for option in ("--section", section)]
        command += ["--log-file", str(table), *_program(places, f"kernels:{profiled}", stage)]
        outcome = run_command(command, left, log, places.environment(), places.imports)
        text = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
        kernels = read_table(text)
        for kernel in kernels:
            results.write(kind="ncu", stage=stage, **kernel)
        if outcome.status != "ok" or not kernels:
            said = re.findall(r"^==ERROR== (.*)$", text, re.MULTILINE)
            reason = said[0] if said else outcome.error or "ncu has written no kernel"
            results.write(kind="not measured", item=f"ncu, {stage}", reason=reason)
            status, error = "error" if outcome.status == "ok" else outcome.status, f"{stage}: {reason}"
            if said:  # no permission, say: the next stage would end in the same way
                break
    return Outcome(status, time.monotonic() - begin, error)


def read_table(text: str) -> list[dict[str, object]]:
    """The kernels of ncu's raw CSV page: "metric, unit" to number. Other lines (``==PROF==``) are passed over."""
    rows = list(csv.DictReader(line for line in text.splitlines() if line.startswith('"')))
    kernels = []
    for row in rows[1:]:  # the first one holds the units
        kernel: dict[str, object] = {"name": (row.get("Kernel Name") or "")[:300]}
        # A ragged row has None as a name, or as a value.
        for metric in filter(re.compile(METRICS).search, filter(None, row)):
            value = (row[metric] or "").replace(",", "")
            if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", value):
                kernel[f"{metric}, {rows[0][metric]}".removesuffix(", ")] = float(value)
        kernels.append(kernel)
    return kernels
