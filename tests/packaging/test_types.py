"""The public names under mypy, as a typed program that uses the package sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def check(sample, folder):
    # The package's own body is not what is asked about, only what it says of itself.
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--cache-dir", str(folder / "cache"), str(sample)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_public_names_are_typed(tmp_path):
    result = check(HERE / "typed_sample.py", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
