"""The steps that are programs, by name. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.gpu.building import build, libraries
from benchmarks.gpu.places import Places
from benchmarks.gpu.processes import Outcome
from benchmarks.gpu.records import Results
from benchmarks.gpu.suites import tests
from benchmarks.gpu.tools import ncu, sanitizer

COMMANDS: dict[str, Callable[[Places, float, Results], Outcome]] = {
    "build": build,
    "libraries": libraries,
    "ncu": ncu,
    "tests": tests,
    "sanitizer": sanitizer,
}
