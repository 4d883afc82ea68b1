"""Checks of flags, integers and pairs of integers, shared by layers, operators and configurations.

torch.compile traces ``integer`` and ``pair``: an int or a SymInt is returned as it is, since converting a SymInt would
specialise the compiled graph on its value.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch


def _subject(where: str, name: str) -> str:
    return f"{where}: {name}" if where else name


def _is_integer(value: object) -> bool:
    """An int, a NumPy integer or a SymInt; not a bool."""
    if isinstance(value, (int, torch.SymInt)):  # first, because torch.compile cannot trace the abstract class
        return not isinstance(value, bool)
    return isinstance(value, Integral)


def _plain(value: int) -> int:
    return value if isinstance(value, (int, torch.SymInt)) else operator.index(value)


def flag(where: str, name: str, value: object) -> bool:
    """``value`` as a bool.

    Raises:
        ValueError: for anything but a bool or a NumPy bool. (A string such as "False" would be true.)
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be True or False")
    return bool(value)


def flags(where: str, name: str, values: Sequence[object], count: int | None = None) -> tuple[bool, ...]:
    """``values``, a sequence or 1-D array, as bools; their number must be ``count`` if that is given.

    A sequence of any class: hydra gives OmegaConf's lists.
    """
    amount = "of" if count is None else f"{count} of"
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = list(values)
    if (
        not isinstance(values, Sequence)
        or (count is not None and len(values) != count)
        or not all(isinstance(value, (bool, np.bool_)) for value in values)
    ):
        raise ValueError(f"{_subject(where, name)} is {values!r}; it must be {amount} True and False")
    return tuple(bool(value) for value in values)


def integer(where: str, name: str, value: Any, minimum: int | None = None) -> int:
    """``value``, an int or a NumPy integer, as an int of at least ``minimum``.

    Raises:
        ValueError: for anything else, bools included.
    """
    if not _is_integer(value):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be an integer")
    if minimum is not None and value < minimum:
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be at least {minimum}")
    return _plain(value)


def pair(where: str, name: str, value: int | Sequence[int], minimum: int | None = None) -> tuple[int, int]:
    """``value``, an integer or an iterable of two, as (vertical, horizontal), each at least ``minimum`` if given.

    Raises:
        ValueError: for anything else.
    """
    # What nearly every call has first: the general way takes two microseconds. A bool is not of type int.
    if type(value) is int and (minimum is None or value >= minimum):
        return value, value
    if isinstance(value, (tuple, list)):
        numbers = tuple(value)
        integers = len(numbers) == 2 and type(numbers[0]) is int and type(numbers[1]) is int
        if integers and (minimum is None or (numbers[0] >= minimum and numbers[1] >= minimum)):
            return numbers
    elif _is_integer(value):
        numbers = (value, value)
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, torch.Tensor)) and np.ndim(value) == 1:
        numbers = tuple(value)
    else:
        numbers = ()
    if len(numbers) != 2 or not all(_is_integer(number) for number in numbers):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be an int or two ints (vertical, horizontal)")
    if minimum is not None and (numbers[0] < minimum or numbers[1] < minimum):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be at least {minimum}")
    return _plain(numbers[0]), _plain(numbers[1])


def conv_geometry(where: str, stride: Any, padding: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    """Stride, padding and dilation, each an int or two, as pairs (vertical, horizontal)."""
    return pair(where, "stride", stride, 1), pair(where, "padding", padding, 0), pair(where, "dilation", dilation, 1)
