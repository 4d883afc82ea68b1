"""Names the state of the C++ and CUDA sources, so that a library tells what it was built from.

``python -m resnet_cuda info`` runs this file by its path, so it imports none of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

ENDINGS = (".cpp", ".cu", ".h", ".cuh")


def sources_in(csrc: Path) -> Iterator[Path]:
    """All sources in the folder ``csrc``, in the order of their names."""
    paths = sorted(csrc.rglob("*"), key=lambda path: path.relative_to(csrc).as_posix())
    return (path for path in paths if path.suffix in ENDINGS)


def digest(csrc: Path) -> str:
    """16 hexadecimal digits of the names and contents of all sources in the folder ``csrc``."""
    found = hashlib.sha256()
    for path in sources_in(csrc):
        text = path.read_bytes()
        found.update(f"{path.relative_to(csrc).as_posix()} {len(text)}\n".encode())
        found.update(text)
    return found.hexdigest()[:16]
