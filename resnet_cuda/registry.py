"""Registries: entries by name, to which users can add [maskrcnn_benchmark.utils.registry]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Registry(dict):
    """A dictionary in which an unknown name is a KeyError that lists the known ones, and no name is registered twice.

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
        """Adds ``value``; without one, a decorator that adds what it decorates."""
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
