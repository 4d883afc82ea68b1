"""What a configuration's values may be, how YAML writes them, and the check of those that the backbone reads."""

from __future__ import annotations

import ast
import datetime
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_ENTRIES = 100_000
DEEPEST = 64


def decoded(value: Any) -> Any:
    """Strings that hold a Python literal, as the YAML files write tuples, become what they say [yacs]."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about texts such as 1or
            literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    try:  # complex numbers and what else Python knows and a configuration does not
        return plain(literal, "") if not isinstance(literal, (bytes, set)) else value
    except ValueError:
        return value


def encoded(value: Any, path: str) -> Any:
    """``value`` as YAML has it, such that :func:`decoded` gives it back: tuples, strings that look like literals."""
    if isinstance(value, str):
        same = decoded(value)
        return value if isinstance(same, str) and same == value else repr(value)
    if isinstance(value, tuple) or (isinstance(value, list) and _holds_a_tuple(value)):
        text = repr(value)
        if decoded(text) != value:
            raise ValueError(f"{path} is {value!r}; YAML cannot hold it beside a tuple")
        return text
    return value


def _holds_a_tuple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_a_tuple(entry) for entry in value.values())
    return isinstance(value, tuple) or (isinstance(value, list) and any(_holds_a_tuple(entry) for entry in value))


def plain(value: Any, path: str) -> Any:
    """A copy of a foreign value in Python's own types.

    Raises:
        ValueError: for what no YAML file holds.
    """
    if value is None or isinstance(value, (bool, bytes, datetime.date)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), path) if isinstance(value, (np.bool_, np.number, np.str_)) else _refuse(value, path)
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, an enumeration's member say, the text itself
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    for collection in (tuple, list, set):
        if isinstance(value, collection):
            return collection(plain(entry, path) for entry in value)
    if isinstance(value, Mapping):
        return {key: plain(entry, path) for key, entry in value.items()}
    return _refuse(value, path)


def _refuse(value: Any, path: str) -> Any:
    raise ValueError(
        f"{path} is {value!r}; it must be None, a bool, a number, a string, a list, a tuple or a section of such"
    )


def check_size(content: Any) -> None:
    """Refuses what a few anchors of a YAML file can make: content without end, and content of exponential size."""
    count, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"the configuration is nested more than {DEEPEST} deep, or contains itself")
        entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        count += len(entries)
        if count > MOST_ENTRIES:
            raise ValueError(f"the configuration has more than {MOST_ENTRIES} entries, or contains itself")
        waiting.extend((entry, depth + 1) for entry in entries)


def checked(path: str, default: Any, value: Any) -> Any:
    """``value`` in the type of its key's ``default``.

    Raises:
        ValueError: naming the key, what it was and what it must be.
    """
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"{path} is {value!r}; it must be a string")
        return str.__str__(value)
    value = decoded(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(default, tuple):
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if (
            not isinstance(value, (tuple, list))
            or len(value) != len(default)
            or not all(isinstance(entry, (bool, np.bool_)) for entry in value)
        ):
            raise ValueError(f"{path} is {value!r}; it must be {len(default)} of True and False")
        return tuple(bool(entry) for entry in value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{path} is {value!r}; it must be True or False")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float) if isinstance(default, float) else int):
        raise ValueError(
            f"{path} is {value!r}; it must be {'a number' if isinstance(default, float) else 'an integer'}"
        )
    return type(default)(value)
