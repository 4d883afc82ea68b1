"""The steps that are programs: the build, the tests, the sanitizer. Nothing here needs torch."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.processes import Outcome, run_command
from benchmarks.gpu.records import Results

ROOT = Path(__file__).resolve().parents[2]
CAPABILITY = "import torch; print('{}.{}'.format(*torch.cuda.get_device_capability()))"
SANITIZERS = {"memcheck": r"ERROR SUMMARY: 0 errors", "racecheck": r"RACECHECK SUMMARY: 0 hazards displayed"}


@dataclass(frozen=True)
class Places:
    """``output`` takes logs and results; ``site`` is where the build is installed, None: resnet_cuda is there already."""

    output: Path
    site: Path | None
    device: str
    quick: bool

    def environment(self) -> dict[str, str]:
        """For the children. Their folder is ``output`` and never the checkout, whose unbuilt package would come first."""
        paths = [*([str(self.site)] if self.site else []), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONUNBUFFERED": "1"}


def architecture(seconds: float) -> str | None:
    """The compute capability of the GPU that is there, such as 9.0; None where torch finds none."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", CAPABILITY], capture_output=True, text=True, timeout=seconds, cwd=ROOT.parent
        )
    except subprocess.TimeoutExpired:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def build(places: Places, seconds: float, results: Results) -> Outcome:
    """``pip install`` of this checkout into ``places.site``; objects that are up to date are not compiled again."""
    begin = time.monotonic()
    environment = dict(os.environ)
    if places.device == "cuda":
        environment.setdefault("RESNET_CUDA_BUILD", "cuda")
        if not environment.get("TORCH_CUDA_ARCH_LIST"):
            found = architecture(seconds / 2)
            if found is None:
                return Outcome(
                    "error", time.monotonic() - begin, "torch finds no GPU, so it is not known what to build for"
                )
            environment["TORCH_CUDA_ARCH_LIST"] = found
    shutil.rmtree(places.site, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--verbose"]
    command += ["--disable-pip-version-check", "--target", str(places.site), str(ROOT)]
    left = seconds - (time.monotonic() - begin)
    outcome = run_command(command, left, places.output / "build.log", environment, places.output)
    results.write(
        kind="build",
        architectures=environment.get("TORCH_CUDA_ARCH_LIST"),
        libraries=sorted(path.name for path in places.site.glob("resnet_cuda/*.so")),
        seconds=round(outcome.seconds, 1),
    )
    error = outcome.error
    if outcome.status == "error":  # the compiler's first word says more than pip's last
        lines = (places.output / "build.log").read_text(errors="replace").splitlines()
        error = next((line.strip()[-400:] for line in lines if re.search(r"\berror: ", line)), error)
    return Outcome(outcome.status, time.monotonic() - begin, error)


def tests(places: Places, seconds: float, results: Results) -> Outcome:
    """``pytest -m cuda``; without a GPU (a dry run) the tests are only collected."""
    folder = ROOT / "tests"
    if not folder.is_dir():
        return Outcome("error", 0.0, "this checkout has no tests/")
    begin = time.monotonic()
    # What needs the GPU for itself, then the long suite, in several processes where pytest-xdist is there.
    parallel = ["-n", "6"] if importlib.util.find_spec("xdist") and places.device == "cuda" else []
    suites = {"cuda": ([], [folder / "cuda"]), "operators": (parallel, [folder / "ops", folder / "layers"])}
    outcomes = []
    for index, (name, (options, folders)) in enumerate(suites.items()):
        left = (seconds - (time.monotonic() - begin)) / (len(suites) - index)
        outcomes.append(_suite(places, left, results, name, [*options, *map(str, folders)]))
    worst = next((outcome for outcome in outcomes if outcome.status != "ok"), outcomes[0])
    return Outcome(worst.status, time.monotonic() - begin, worst.error)


def _suite(places: Places, seconds: float, results: Results, name: str, arguments: list[str]) -> Outcome:
    report, log = places.output / f"tests-{name}.xml", places.output / f"tests-{name}.log"
    report.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), f"--junitxml={report}", *arguments]
    if places.device != "cuda":
        command.append("--collect-only")
    outcome = run_command(command, seconds, log, places.environment(), places.output)
    counts = counted(report)
    if counts is None:  # cut, or collected only: the log has one line per test
        text = log.read_text(errors="replace")
        counts = {word.lower(): len(re.findall(rf"\b{word}\b", text)) for word in ("PASSED", "FAILED", "SKIPPED")}
    report.unlink(missing_ok=True)
    results.write(kind="tests", suite=name, collected_only=places.device != "cuda", **counts)
    if outcome.status == "ok" and places.device == "cuda" and not counts["passed"]:
        return Outcome("error", outcome.seconds, f"{name}: no test has passed")
    return Outcome(outcome.status, outcome.seconds, f"{name}: {outcome.error}" if outcome.error else None)


def counted(report: Path) -> dict[str, object] | None:
    """Counts and the names of what failed, from pytest's XML; None where it holds none."""
    try:
        suite = ElementTree.parse(report).getroot().find("testsuite")
    except (OSError, ElementTree.ParseError):
        return None
    if suite is None or not int(suite.get("tests", 0)):
        return None
    total, failed, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
    names = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = total - failed - errors - skipped
    return {"passed": passed, "failed": failed, "error": errors, "skipped": skipped, "failures": names[:50]}


def sanitizer(places: Places, seconds: float, results: Results) -> Outcome:
    """memcheck and racecheck over small shapes, our kernels only; the same shapes without the tool where it is not there."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    program = [sys.executable, "-m", "benchmarks.gpu.sanitized", "--device", places.device]
    log = places.output / "sanitizer.log"
    environment = places.environment()
    if places.device != "cuda" or tool is None:
        reason = "there is no compute-sanitizer" if places.device == "cuda" else "it needs a GPU"
        results.write(kind="not measured", item="compute-sanitizer", reason=reason)
        return run_command(program, seconds, log, environment, places.output)
    # Each tensor gets an allocation of its own: an access behind its end is then no access to a neighbour.
    environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    begin, worst = time.monotonic(), Outcome("ok", 0.0)
    for name, clean in SANITIZERS.items():
        left = (seconds - (time.monotonic() - begin)) / (2 if name == "memcheck" else 1)
        command = [tool, "--tool", name, "--kernel-name", "kns=resnet_cuda", "--error-exitcode", "9", *program]
        start = log.stat().st_size if log.exists() else 0
        outcome = run_command(command, left, log, environment, places.output)
        text = log.read_bytes()[start:].decode(errors="replace")
        is_clean = outcome.status == "ok" and re.search(clean, text) is not None
        summary = re.findall(r"^========= (.*SUMMARY.*)$", text, re.MULTILINE)[-1:]
        results.write(kind="sanitizer", item=name, clean=is_clean, summary=summary, error=outcome.error)
        if not is_clean:
            status = "timeout" if outcome.status == "timeout" else "error"
            worst = Outcome(status, 0.0, f"{name}: {outcome.error or 'its summary is not that of a clean run'}")
    return Outcome(worst.status, time.monotonic() - begin, worst.error)


COMMANDS: dict[str, Callable[[Places, float, Results], Outcome]] = {
    "build": build,
    "tests": tests,
    "sanitizer": sanitizer,
}
