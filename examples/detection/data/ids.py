"""Ids of a JSON, which must be whole numbers."""

from __future__ import annotations

from typing import Any

from detection.data.segmentation import shortened


def whole(value: Any) -> int | None:
    """The id as an int; None where it is no whole number of 64 bits. 3.0 is 3, True is no number."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def found(value: Any) -> str:
    """What an id is that is no whole number, for a message: its value and its type."""
    return f"{shortened(value)} (of type {type(value).__name__})"
