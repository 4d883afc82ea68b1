"""Runs tests of this folder in a process of their own, on libraries that the caller has built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from emulation.build import compiler

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
            [compiler(), f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        if not Path(printed).is_absolute():
            return None
        paths.append(printed)
    return paths


def run_python(
    arguments: Sequence[str], libraries: Path, *, sanitize: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python arguments`` with stdout and stderr together in ``stdout``."""
    variables = os.environ | environment | {LIBRARIES: str(libraries), "OMP_NUM_THREADS": "1"}
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
    # A sanitizer's last words go to the process's own stderr, which pytest must not keep to itself.
    options = ("-q", "-p", "no:cacheprovider", "--capture=sys")
    return run_python(["-m", "pytest", *options, *arguments], libraries, sanitize=sanitize, **environment)
