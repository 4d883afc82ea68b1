"""Tells a method that a class's library wrote from one that other code has put on the class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def is_patched(known: type, name: str) -> bool:
    """Whether the method or property ``name`` of ``known`` was written neither in its class statement nor in a base's.

    The patch may be older than this package's import. functools.wraps copies a function's module and qualified name to
    its wrapper, but not its globals; those of a function of the class are of the module that the class is in.
    """
    found: Any = getattr(known, name, None)
    if found is None:
        return False
    function: Any = found.fget if isinstance(found, property) else found
    module = getattr(function, "__globals__", {}).get("__name__")
    written = getattr(function, "__qualname__", None)
    return not any(
        module == it.__module__ and written == f"{it.__qualname__}.{function.__name__}" for it in known.__mro__
    )


def first_patched(known: type, names: Iterable[str]) -> str | None:
    """The first of ``names`` that :func:`is_patched`, or None."""
    return next((name for name in names if is_patched(known, name)), None)


def unpatched(name: str, *classes: type) -> tuple[Any, ...]:
    """The methods ``name`` of ``classes``, without those that are patched: for a comparison in each call."""
    return tuple(getattr(it, name) for it in classes if not is_patched(it, name))
