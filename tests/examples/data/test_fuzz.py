"""Random damage, in a process of its own: under a limit of memory and time it must not end, nor give a wrong sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc says")


@pytest.mark.parametrize(("kind", "count"), [("annotations", 2500), ("images", 2000)])
def test_fuzz(kind, count, tmp_path):
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz.py"), kind, str(count), "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    outcomes = json.loads(run.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == count
    # It comes to both ends: much is damaged, much is still read.
    good = sum(number for name, number in outcomes.items() if name == "object" or name.endswith("read"))
    assert 0.15 * count < good < 0.85 * count
