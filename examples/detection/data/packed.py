"""Lists of Python objects in one array, so that worker processes share their memory.

A forked worker shares its parent's memory until either writes to it. Merely reading a Python object writes its
reference count, so that each worker would soon have a copy of all annotations; an array's bytes are only read.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np


class Packed:
    """A list that keeps its items as bytes: ``data`` (bytes,) uint8 and ``offsets`` (n + 1,) int64. Items are made anew
    whenever one is asked for."""

    def __init__(self, items: Iterable[Any]):
        chunks = [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in items]
        self.offsets = np.zeros(len(chunks) + 1, dtype=np.int64)
        np.cumsum([len(chunk) for chunk in chunks], out=self.offsets[1:])
        self.data = np.frombuffer(b"".join(chunks), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is none of {len(self)} items")
        return pickle.loads(self.data[self.offsets[index] : self.offsets[index + 1]])
