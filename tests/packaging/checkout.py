"""A copy of the checkout to build packages from, and a stand-in for the compiler, since only what is packed matters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
CPP = "libresnet_cuda.so"
CUDA = "_cuda_kernels.so"

COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "stand-in 1.0"; exit; }
echo "$@" >> "$(dirname "$0")/commands"
while [ $# -gt 0 ]; do
  [ "$1" = -o ] && echo compiled > "$2"
  shift
done
"""


def copy(folder: Path) -> Path:
    """The checkout's files without what was ever built in it."""
    ignored = shutil.ignore_patterns(
        "*.so", "__pycache__", "build", "dist", "*.egg-info", ".git", ".venv*", "runs", ".*_cache", "results"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


def stand_in(folder: Path) -> Path:
    """A compiler that compiles nothing: it writes the output file that it is asked for, and what it was called with."""
    folder.mkdir()
    compiler = folder / "c++"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    return compiler


def commands(compiler: str) -> list[str]:
    """What the stand-in was called with, a line each."""
    return (Path(compiler).parent / "commands").read_text().splitlines()


def run(checkout: Path, code: str, **variables: str) -> str:
    """Runs ``code`` in the checkout, as a build front end does.

    Raises:
        RuntimeError: with what was said.
    """
    environment = {key: value for key, value in os.environ.items() if not key.endswith("FLAGS")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '.')\n{code}"]
    result = subprocess.run(
        command, cwd=checkout, env={**environment, **variables}, capture_output=True, text=True, timeout=300
    )
    if result.returncode != 0:
        raise RuntimeError(result.stdout + result.stderr)
    return result.stdout + result.stderr
