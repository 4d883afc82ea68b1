"""Reads NumPy's arrays, dtypes and scalars from a pickle without NumPy's own unpickling.

``numpy.ndarray.__setstate__`` trusts the shape, the dtype and the bytes in the file. Here they are checked against each
other first, and only numbers and text are allowed: an array of objects contains further pickles.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Literal

import numpy as np
import torch

from resnet_cuda.weights._malformed import Budget, MalformedError, count

_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_CODE = re.compile(r"[<>=|]?([a-zA-Z])([0-9]{1,9})")
_TEXT_SIZE = {"S": 1, "U": 4}
_STR_OBJECT = 64  # bytes, about, that Python needs for a string besides its text


class Dtype:
    """A dtype; the pickle sets its byte order afterwards, see :meth:`pickled_state`."""

    def __init__(self, kind: str, size: int) -> None:
        self.kind, self.size, self.order = kind, size, "="

    def __str__(self) -> str:
        return str(self.numpy())

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.kind}{self.size}")

    def pickled_state(self, state: Any, budget: Budget) -> None:
        """``state`` is (version, byte order, subarray, names, fields, ...); the middle three must be None."""
        if type(state) is not tuple or not 5 <= len(state) <= 9 or state[1] not in ("<", ">", "=", "|"):
            raise MalformedError("the state of a dtype is damaged")
        if state[2:5] != (None, None, None):
            raise MalformedError("it holds an array with fields; only plain numbers are read")
        self.order = "=" if state[1] == "|" else state[1]


class Array:
    """An array, empty until the pickle sets its state."""

    def __init__(self) -> None:
        self.value: Any = None
        self.filled = False

    def pickled_state(self, state: Any, budget: Budget) -> None:
        """``state`` is (version, shape, dtype, Fortran order, bytes), in NumPy's oldest pickles without the version."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise MalformedError("the state of an array is damaged")
        shape, dtype, fortran, raw = state[-4:]
        if type(shape) is not tuple or not isinstance(dtype, Dtype) or type(fortran) not in (bool, int):
            raise MalformedError("the state of an array is damaged")
        self.value = _content(_array(shape, dtype, "F" if fortran else "C", raw, budget), budget)
        self.filled = True

    def content(self) -> Any:
        """A tensor, or the nested list of an array of text."""
        if not self.filled:
            raise MalformedError("it holds an array without content")
        return self.value


def _array(
    shape: tuple[Any, ...], dtype: Dtype, order: Literal["C", "F"], raw: Any, budget: Budget
) -> np.ndarray[Any, Any]:
    """A read-only array upon ``raw``, bytes or latin1 text."""
    kind = dtype.numpy()
    size = count(shape, "an array") * kind.itemsize
    if type(raw) is str:  # of Python 2
        budget.take(len(raw))
        raw = raw.encode("latin1")
    if type(raw) is not bytes:
        raise MalformedError("an array's content is not bytes")
    if len(raw) != size:
        raise MalformedError(f"an array of {shape} {kind} has {len(raw)} bytes for {size}")
    if dtype.kind == "U" and size and np.frombuffer(raw, f"{dtype.order}u4").max() > sys.maxunicode:
        raise MalformedError("an array's text has invalid code points")
    # An empty array takes no buffer of its own.
    return np.ndarray(shape, kind, buffer=raw if size else None, order=order)


def _content(array: np.ndarray[Any, Any], budget: Budget) -> Any:
    if array.dtype.kind in _TEXT_SIZE:
        budget.take(array.size * _STR_OBJECT + array.nbytes)
        return array.tolist()
    budget.take(array.nbytes)
    if array.dtype.kind == "b":  # a byte of a damaged file need be neither 0 nor 1
        return torch.from_numpy(array.view(np.uint8) != 0)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))


def _dtype(arguments: tuple[Any, ...], budget: Budget) -> Dtype:
    """numpy.dtype(code, align, copy)"""
    code = arguments[0]
    match = _CODE.fullmatch(code) if type(code) is str else None
    if match is None:
        raise MalformedError("the code of a dtype is damaged")
    kind, size = match[1], int(match[2])
    if kind == "O":
        raise MalformedError("refused: it holds an array of objects, whose pickles could run code")
    if not (size > 0 if kind in _TEXT_SIZE else size in _SIZES.get(kind, ())):
        raise MalformedError(
            f"it holds an array of dtype {code[:20]!r}; only numbers of up to 8 bytes and text are read"
        )
    return Dtype(kind, size)


def _reconstruct(arguments: tuple[Any, ...], budget: Budget) -> Array:
    """numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b"), upon which the state is built"""
    if str(arguments[0]) != "numpy.ndarray":
        raise MalformedError("it holds an array of a class that is not numpy.ndarray")
    return Array()


def _scalar(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """numpy.core.multiarray.scalar(dtype, bytes): a number of Python"""
    dtype, raw = arguments
    if not isinstance(dtype, Dtype):
        raise MalformedError("a number's dtype is damaged")
    array = _array((1,), dtype, "C", raw, budget)
    return bool(array.view(np.uint8)[0]) if dtype.kind == "b" else array.item()


def _from_buffer(arguments: tuple[Any, ...], budget: Budget) -> Array:
    """numpy.core.numeric._frombuffer(bytes, dtype, shape, order[, order of the axes]), of protocol 5"""
    raw, dtype, shape, order, *axes = arguments
    if not isinstance(dtype, Dtype) or type(shape) is not tuple or order not in ("C", "F", "K") or len(axes) > 1:
        raise MalformedError("an array's buffer is damaged")
    array = _array(shape, dtype, "F" if order == "F" else "C", raw, budget)
    if order == "K" and axes and axes[0] is not None:
        if type(axes[0]) is not tuple or len(axes[0]) != len(shape) or set(axes[0]) != set(range(len(shape))):
            raise MalformedError("an array's order of axes is damaged")
        array = array.transpose(axes[0])
    made = Array()
    made.value, made.filled = _content(array, budget), True
    return made


# In the module `numpy`; by themselves names only.
CLASSES = {"ndarray": None, "dtype": _dtype}
# In `numpy.core` and `numpy._core`.
FUNCTIONS = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
}
