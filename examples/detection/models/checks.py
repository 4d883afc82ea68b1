"""Checks of single options; each error is one sentence with the option, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NoReturn


def refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise ValueError(f"{name} is {value!r:.100}; it must be {allowed}")


def integer(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """``value`` as an int of ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        refuse(name, value, "an integer")
    if value < least and most is None:
        refuse(name, value, f"at least {least}")
    if most is not None and not least <= value <= most:
        refuse(name, value, f"{least} to {most}")
    return int(value)


def integers(name: str, values: object, allowed: str, least: int = 1) -> tuple[int, ...]:
    """A list or tuple of integers of at least ``least``; ``allowed`` is said where it is something else."""
    if not _is_sequence(values) or not all(_is_integer(value) and value >= least for value in values):
        refuse(name, values, allowed)
    return tuple(int(value) for value in values)


def positive_numbers(name: str, values: object) -> tuple[float, ...]:
    numbers = values if _is_sequence(values) else ()
    if not numbers or not all(_is_number(value) and math.isfinite(value) and value > 0 for value in numbers):
        refuse(name, values, "one or more numbers above 0")
    return tuple(float(value) for value in numbers)


def flags(name: str, values: object, count: int) -> tuple[bool, ...]:
    if not _is_sequence(values) or len(values) != count or not all(isinstance(value, bool) for value in values):
        refuse(name, values, f"{count} of True and False")
    return tuple(values)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        refuse(name, value, f"one of {', '.join(allowed)}")
    return value


def distinct_names(name: str, values: object) -> tuple[str, ...]:
    """Names that are not empty, none of them twice."""
    if not _is_sequence(values):
        refuse(name, values, "a list of names")
    for position, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            refuse(f"{name}[{position}]", value, "a name")
    _refuse_twice(name, values)
    return tuple(values)


def distinct_ids(name: str, values: object, count: int) -> tuple[int, ...]:
    """As many integers from 0 on as there are classes, none of them twice; or none at all."""
    ids = integers(name, values, "integers from 0 on", 0)
    if ids and len(ids) != count:
        raise ValueError(
            f"{name} has {len(ids)} entries; there must be one for each of the {count} class_names, or none"
        )
    _refuse_twice(name, ids)
    return ids


def _refuse_twice(name: str, values: Sequence[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} has {value!r} twice; each must be there once")
        seen.add(value)


def _is_sequence(values: object) -> bool:
    return isinstance(values, (list, tuple))


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
