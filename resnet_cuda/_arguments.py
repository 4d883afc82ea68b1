"""Rules for plain arguments: flags, integers and pairs of integers. A wrong one is an error, not another meaning.

Imports torch only, so that the reference and the layers can share it. torch.compile traces ``pair``: an integer that
is an int or a SymInt already is passed on untouched, since converting a SymInt would tie the compiled graph to its
value.
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
    """An int, a NumPy integer or a SymInt; True and False count as none."""
    if isinstance(value, (int, torch.SymInt)):  # by itself: torch.compile never comes to the abstract class
        return not isinstance(value, bool)
    return isinstance(value, Integral)


def _plain(value: int) -> int:
    return value if isinstance(value, (int, torch.SymInt)) else operator.index(value)


def flag(where: str, name: str, value: object) -> bool:
    """``value`` as a bool.

    Raises:
        ValueError: for anything but a bool or a NumPy bool. A string is true whatever it says, so it is no flag.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be True or False")
    return bool(value)


def flags(where: str, name: str, values: Sequence[object], count: int | None = None) -> tuple[bool, ...]:
    """``values`` as bools, ``count`` of them where there is one."""
    amount = "of" if count is None else f"{count} of"
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = list(values)
    if (
        not isinstance(values, (tuple, list))
        or (count is not None and len(values) != count)
        or not all(isinstance(value, (bool, np.bool_)) for value in values)
    ):
        raise ValueError(f"{_subject(where, name)} is {values!r}; it must be {amount} True and False")
    return tuple(bool(value) for value in values)


def integer(where: str, name: str, value: Any, minimum: int | None = None) -> int:
    """``value``, an int or a NumPy integer, as an int of at least ``minimum``.

    Raises:
        ValueError: for anything else; a bool is no integer.
    """
    if not _is_integer(value):
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be an integer")
    if minimum is not None and value < minimum:
        raise ValueError(f"{_subject(where, name)} is {value!r}; it must be at least {minimum}")
    return _plain(value)


def pair(where: str, name: str, value: int | Sequence[int], minimum: int | None = None) -> tuple[int, int]:
    """``value`` as (vertical, horizontal), each at least ``minimum`` where there is one.

    Raises:
        ValueError: unless it is an integer or an iterable of two, as torch's layers take it.
    """
    if isinstance(value, (tuple, list)):
        numbers = tuple(value)
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
