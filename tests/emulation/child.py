"""Runs tests of this folder in a process of their own, on libraries that the caller has built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from helpers.cpp_library import compiler
from helpers.processes import PACKAGE, TESTS

# Where a child finds its libraries, by name, instead of building them.
LIBRARIES = "RESNET_CUDA_EMULATION_LIBRARIES"
SANITIZER_EXIT = 99


def sanitizer_runtimes() -> list[str] | None:
    """What must be loaded before Python itself, or None where the compiler has no AddressSanitizer.

    libstdc++ too: AddressSanitizer looks for its __cxa_throw when the process starts.
    """
    paths = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        printed = subprocess.run(
            [*compiler(), f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        if not Path(printed).is_absolute():
            return None
        paths.append(printed)
    return paths


def one_thread() -> dict[str, str]:
    """The environment of a process that computes with one thread, and is none of pytest-xdist's itself."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    return variables | {"OMP_NUM_THREADS": "1"}


def run_python(
    arguments: Sequence[str], libraries: Path, *, sanitize: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python arguments`` with stdout and stderr together in ``stdout``."""
    variables = one_thread() | environment | {LIBRARIES: str(libraries)}
    if sanitize:
        # Python and torch keep memory to the end, so leaks say nothing here.
        variables |= {
            "LD_PRELOAD": " ".join(sanitizer_runtimes()),
            "ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_EXIT}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={SANITIZER_EXIT}",
        }
    return subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    )


def run_tests(
    arguments: Sequence[str], libraries: Path, *, sanitize: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """pytest on ``arguments``: test files of this folder and options."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "pytest", *pytest_options(folder), *arguments]
        return run_python(command, libraries, sanitize=sanitize, **environment)


def pytest_options(folder: str) -> list[str]:
    # A sanitizer's last words go to the process's own stderr, which pytest must not keep to itself.
    return ["-q", "-p", "no:cacheprovider", "--capture=sys", f"--basetemp={folder}/temporary"]


class Forked:
    """Runs pytest as :func:`run_tests` does without sanitizers, in forks of one process that has imported torch."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emulation.forked"],
            cwd=TESTS,
            env=one_thread() | {"PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{TESTS}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._one_at_a_time = threading.Lock()

    def run_tests(self, arguments: Sequence[str], libraries: Path) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder, self._one_at_a_time:
            output = Path(folder) / "output.txt"
            request = {
                "arguments": [*pytest_options(folder), *arguments],
                "environment": {LIBRARIES: str(libraries)},
                "output": str(output),
            }
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, status, output.read_text(errors="replace"))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
