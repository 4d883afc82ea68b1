"""Registries: entries by name, which users can extend [maskrcnn_benchmark.utils.registry]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Registry(dict):
    """A dictionary whose KeyError for an unknown name lists the known ones. A name can be registered only once.

    >>> BLOCKS = Registry("block")
    >>> @BLOCKS.register("MyBlock")
    ... class MyBlock: ...
    """

    def __init__(self, kind: str, entries: dict[str, Any] | None = None):
        super().__init__()
        self.kind = kind
        for name, value in (entries or {}).items():
            self.register(name, value)

    def register(self, name: str, value: Any = None) -> Any:
        """Adds ``value`` and returns it; without one, returns a decorator that adds the decorated object.

        Raises:
            KeyError: if ``name`` is registered already.
        """
        if value is None:

            def decorate(decorated: Callable) -> Callable:
                self.register(name, decorated)
                return decorated

            return decorate
        if name in self:
            raise KeyError(f"{self.kind} {name!r} is registered already, as {self[name]!r}")
        self[name] = value
        return value

    def __missing__(self, name: object) -> Any:
        raise KeyError(f"unknown {self.kind} {name!r}; allowed are {', '.join(sorted(self))}")
