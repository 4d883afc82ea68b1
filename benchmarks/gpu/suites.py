"""``pytest -m cuda`` as a step. Nothing here needs torch."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.gpu.places import ROOT, Places
from benchmarks.gpu.processes import Outcome, run_command
from benchmarks.gpu.records import Results

FOLDERS = ("cuda", "ops", "layers")
PROCESSES = 6
WORDS = ("PASSED", "FAILED", "ERROR", "SKIPPED")


def tests(places: Places, seconds: float, results: Results) -> Outcome:
    """All tests for a GPU, in several processes where pytest-xdist is there; a dry run only collects them."""
    folders = [ROOT / "tests" / name for name in FOLDERS if (ROOT / "tests" / name).is_dir()]
    if not folders:
        return Outcome("error", 0.0, "this checkout has no tests/")
    report, log = places.output / "tests.xml", places.output / "tests.log"
    report.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), f"--junitxml={report}"]
    if places.device != "cuda":
        command.append("--collect-only")
    else:
        command += parallel()
    outcome = run_command([*command, *map(str, folders)], seconds, log, places.environment(), places.imports)
    counts = counted(report)
    if counts is None:  # cut, or collected only: the log has one line per test
        counts = counted_lines(log.read_text(errors="replace"))
    report.unlink(missing_ok=True)
    results.write(kind="tests", collected_only=places.device != "cuda", whole=outcome.status != "timeout", **counts)
    if outcome.status == "ok" and places.device == "cuda" and not counts["passed"]:
        return Outcome("error", outcome.seconds, "no test has passed")
    return outcome


def parallel() -> list[str]:
    """pytest-xdist's options; none where it is not installed. Tests differ much in length: whoever is done takes others'."""
    try:
        version = importlib.metadata.version("pytest-xdist")
    except importlib.metadata.PackageNotFoundError:
        return []
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return ["-n", str(PROCESSES), *(["--dist", "worksteal"] if numbers >= (3, 2) else [])]


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


def counted_lines(log: str) -> dict[str, object]:
    """The same from ``pytest -v``'s lines, with xdist's ("[gw0] [ 1%] PASSED name") or without ("name PASSED [ 1%]")."""
    with_xdist = rf"^\[gw\d+\] \[ *\d+%\] ({'|'.join(WORDS)}) (\S+)"
    without = rf"^(\S+::.*?) ({'|'.join(WORDS)})\b"
    found = [(word, name) for word, name in re.findall(with_xdist, log, re.MULTILINE)]
    found += [(word, name) for name, word in re.findall(without, log, re.MULTILINE)]
    counts: dict[str, object] = {word.lower(): sum(one == word for one, _ in found) for word in WORDS}
    return counts | {"failures": [name for word, name in found if word in ("FAILED", "ERROR")][:50]}
