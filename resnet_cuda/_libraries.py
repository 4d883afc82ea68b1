"""What a compiled library's file says of itself, and whether it is loaded: what is registered cannot be taken back."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_cuda._schemas import SCHEMAS

# Schemas lie near each other. Searching the whole file for each of them would take a millisecond.
_NEAR = 1 << 16
_VERSION = re.compile(rb"resnet_cuda version ([^\0]{1,64})\0")


def operators_that_differ(library: Path) -> list[str]:
    """The operators that ``library`` lacks, or has with another schema; all of them in a file that is none of ours."""
    with _content(library) as content:
        first, *others = (f"{name}{rest}\0".encode() for name, rest in SCHEMAS.items())
        place = content.find(first)
        near = (0, len(content)) if place < 0 else (max(0, place - _NEAR), place + _NEAR)
        found = [place >= 0, *(content.find(schema, *near) >= 0 or content.find(schema) >= 0 for schema in others)]
    return [name for name, is_there in zip(SCHEMAS, found, strict=True) if not is_there]


def is_built_from(library: Path, sources: str) -> bool:
    """Whether ``library`` was built from the sources with this digest (``build_native/sources.py``)."""
    with _content(library) as content:
        return content.find(f"resnet_cuda_sources_{sources}\0".encode()) >= 0


def version_of(library: Path) -> str | None:
    """The version that ``library`` was built for; None if it does not say."""
    with _content(library) as content:
        found = _VERSION.search(content)
        return None if found is None else found[1].decode("ascii", "replace")


def is_loaded(library: Path) -> bool:
    """Whether ``library`` is in this process; False where the system cannot tell (Windows)."""
    without_loading = getattr(os, "RTLD_NOLOAD", None)
    if without_loading is None:
        return False
    try:
        ctypes.CDLL(str(library), without_loading)
    except OSError:
        return False
    return True


@contextmanager
def _content(library: Path) -> Iterator[mmap.mmap | bytes]:
    """Nothing for a file that is empty or cannot be read: the loader has the words for it."""
    try:
        with open(library, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        yield b""
        return
    with content:
        yield content
