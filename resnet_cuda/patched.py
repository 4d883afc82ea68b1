"""Tells a method that a class's library wrote from one that other code has put on the class."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterable
from typing import Any

_MISSING = object()


def is_patched(known: type, name: str) -> bool:
    """Whether the method or property ``name`` of ``known`` was written neither in its class statement nor in a base's.

    The patch may be older than this package's import. functools.wraps copies a function's module and qualified name to
    its wrapper, but not its globals; those of a function of the class are the module's that the class is in. A proxy
    (wrapt's) answers for the function in it in all but its type.
    """
    found = inspect.getattr_static(known, name, _MISSING)
    if found is _MISSING:
        return False
    function = found.fget if type(found) is property else found
    if type(function) is not types.FunctionType:
        return True
    code: Any = function.__code__
    if getattr(code, "co_qualname", function.__qualname__) != function.__qualname__:  # since Python 3.11
        return True
    return not any(
        vars(sys.modules.get(it.__module__, sys)) is function.__globals__
        and function.__qualname__ == f"{it.__qualname__}.{code.co_name}"
        for it in known.__mro__
    )


def first_patched(known: type, names: Iterable[str]) -> str | None:
    """The first of ``names`` that :func:`is_patched`, or None."""
    return next((name for name in names if is_patched(known, name)), None)


class Originals:
    """The methods ``name`` of ``classes`` as their libraries wrote them, for a comparison in each call.

    One that is patched while this is made is looked for again later: the patch may be for a time only.
    """

    def __init__(self, name: str, *classes: type) -> None:
        self._name = name
        # The methods found and the classes that lack theirs, in one: threads may look at the same time.
        self._state: tuple[tuple[Any, ...], tuple[type, ...]] = (), classes
        self._look()

    def _look(self) -> tuple[Any, ...]:
        found, missing = self._state
        patched = tuple(it for it in missing if is_patched(it, self._name))
        found += tuple(getattr(it, self._name) for it in missing if it not in patched)
        self._state = found, patched
        return found

    def __contains__(self, method: object) -> bool:
        found, missing = self._state
        if missing:
            found = self._look()
        # Not `in`, as a proxy equals the function in it; not any(), which takes three times as long.
        for it in found:  # noqa: SIM110
            if it is method:
                return True
        return False
