"""Where the sources are and where the build writes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
BUILT = ROOT / "build" / "native"
