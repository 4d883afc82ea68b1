"""A configuration's values: which are allowed, their form in YAML, and the checks of those that the backbone reads."""

from __future__ import annotations

import ast
import datetime
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_cuda._arguments import flag, flags, integer

MAX_ENTRIES = 100_000
MAX_DEPTH = 64


def decoded(value: Any) -> Any:
    """Evaluates a string that holds a Python literal, such as a tuple in a YAML file; else returns ``value`` [yacs]."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's SyntaxWarning about strings such as "1or 2"
            literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    try:  # a literal that no configuration holds, such as a complex number, stays a string
        return plain(literal, "") if not isinstance(literal, (bytes, set)) else value
    except ValueError:
        return value


def encoded(value: Any, path: str) -> Any:
    """The inverse of :func:`decoded`, for YAML: tuples, and strings that look like literals, become their ``repr``."""
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
    """A copy of ``value`` in Python's built-in types: NumPy scalars and subclasses are converted.

    Raises:
        ValueError: for a type that YAML cannot hold.
    """
    if value is None or isinstance(value, (bool, bytes, datetime.date)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), path) if isinstance(value, (np.bool_, np.number, np.str_)) else _refuse(value, path)
    if isinstance(value, str):
        return str.__str__(value)  # the text of a subclass too, such as an enumeration's member
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
    """Raises ValueError for content that contains itself or is of exponential size, as YAML anchors allow."""
    count, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"the configuration is nested more than {MAX_DEPTH} deep, or contains itself")
        entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        count += len(entries)
        if count > MAX_ENTRIES:
            raise ValueError(f"the configuration has more than {MAX_ENTRIES} entries, or contains itself")
        waiting.extend((entry, depth + 1) for entry in entries)


def near_miss(key: Any, value: Any, known: Mapping[str, Any]) -> str | None:
    """What a foreign ``key`` was meant to be, one of the ``known`` names; None for any other.

    It differs from the name by case, spaces or one letter at the end, or it has dots: ``MODEL.RESNETS.NUM_GROUPS`` is
    for lists only. A section's name is meant only where ``value`` is a section.
    """
    if not isinstance(key, str):
        return None
    first, *rest = key.strip().split(".")
    given = first.upper()
    for name, default in known.items():
        is_section = isinstance(default, Mapping)
        if rest and given == name and is_section:
            return f"{name}: {{{': {'.join(rest)}: ...{'}' * len(rest)}, names with dots are for merge_from_list"
        if rest or is_section != isinstance(value, Mapping):
            continue
        longer = given[:-1] == name and given[-1].isalpha()
        shorter = given == name[:-1] and len(name) > 5  # MODE and FP are words of their own
        if given == name or longer or shorter:
            return name
    return None


def checked(path: str, default: Any, value: Any) -> Any:
    """``value`` converted to the type of its key's ``default``.

    Raises:
        ValueError: naming the key, its value and what it must be.
    """
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"{path} is {value!r}; it must be a string")
        return str.__str__(value)
    value = decoded(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(default, tuple):
        return flags("", path, value, len(default))
    if isinstance(default, bool):
        return flag("", path, value)
    if isinstance(default, int):
        return int(integer("", path, value))  # a plain int, of an IntEnum too
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{path} is {value!r}; it must be a number")
    number = _float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{path} is {value!r:.80}; it must be a finite number, 0 or more")
    return number


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf
