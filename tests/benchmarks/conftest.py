"""The benchmarks are part of the checkout, not of the package."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if (ROOT / "benchmarks").is_dir():
    sys.path.insert(0, str(ROOT))
else:
    collect_ignore_glob = ["test_*.py"]  # a wheel alone is being tested
