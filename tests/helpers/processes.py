"""Code that runs in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import resnet_cuda

PACKAGE = Path(resnet_cuda.__file__).parent
TESTS = Path(__file__).parents[1]


def run_python(
    *arguments: str | Path, path: str | Path | None = None, cwd: Path = TESTS, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python arguments…`` with the package that this process tests and the test helpers on its path.

    Args:
        path: what PYTHONPATH is instead.
        cwd: a folder without a package, since Python looks there first.
        variables: added to the environment, which is this process's without RESNET_CUDA_BACKEND.
    """
    default = os.pathsep.join(map(str, (PACKAGE.parent, TESTS)))
    environment = {**os.environ, "PYTHONPATH": str(path or default)}
    environment.pop("RESNET_CUDA_BACKEND", None)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=300)
