"""Writes pickles that NumPy before version 2 can also read, for Detectron and older detectron2."""

from __future__ import annotations

import pickle
from typing import IO, Any

import numpy as np

_RECONSTRUCT = np.zeros(1).__reduce__()[0]


class DetectronPickler(pickle._Pickler):
    """Writes protocol 2 with module names that every version of NumPy can import.

    NumPy 2 renamed ``numpy.core`` to ``numpy._core``, which NumPy 1 cannot import. This derives from Python's pure
    pickler: the one in C has no hook for the name of a function.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=2)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is _RECONSTRUCT:
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    # pickle._Pickler finds how to write a function by its class, not by save_global.
    dispatch = {**pickle._Pickler.dispatch, type(_RECONSTRUCT): save_global}
