"""Code that runs in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import resnet_cuda

PACKAGE = Path(resnet_cuda.__file__).parent
TESTS = Path(__file__).parents[1]


def run_python(
    *arguments: str | Path,
    path: str | Path | None = None,
    cwd: Path = TESTS,
    stdout: int | IO[bytes] = subprocess.PIPE,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Runs ``python arguments…`` with the package that this process tests and the test helpers on its path.

    Args:
        path: what PYTHONPATH is instead.
        cwd: a folder without a package, since Python looks there first.
        stdout: where the output goes instead of into the result.
        variables: added to the environment, which is this process's without RESNET_CUDA_BACKEND.
    """
    default = os.pathsep.join(map(str, (PACKAGE.parent, TESTS)))
    environment = {**os.environ, "PYTHONPATH": str(path or default)}
    environment.pop("RESNET_CUDA_BACKEND", None)
    command = [sys.executable, *map(str, arguments)]
    streams = {"stdout": stdout, "stderr": subprocess.PIPE}
    return subprocess.run(command, cwd=cwd, env=environment | variables, text=True, timeout=300, **streams)
