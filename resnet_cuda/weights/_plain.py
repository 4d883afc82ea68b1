"""The last step of reading: converts the content of a pickle or a header to plain containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resnet_cuda.weights._malformed import MalformedError

MAX_DEPTH = 64
# Entries, with an object that is mentioned twice counted twice: whoever walks through the result visits as many. A list
# that holds one list twice, which holds one list twice, and so on 40 times, is 200 bytes and a million million entries.
MAX_ENTRIES = 1_000_000

_SCALARS = (str, int, float, complex, bytes, bool, type(None))


def plain(content: Any, leaf: Callable[[Any], Any]) -> Any:
    """Copies the containers of ``content`` into dict, list, tuple and set, and maps each leaf by ``leaf``.

    Objects that are shared stay shared.

    Raises:
        MalformedError: for content that contains itself, is nested deeper than :data:`MAX_DEPTH`, or has more than
            :data:`MAX_ENTRIES` entries.
    """
    return _Walk(leaf).copy(content, 0)[0]


class _Walk:
    def __init__(self, leaf: Callable[[Any], Any]) -> None:
        self.leaf = leaf
        self.done: dict[int, tuple[Any, int, int]] = {}  # by id: the copy, its entries, its depth
        self.open: set[int] = set()

    def copy(self, value: Any, depth: int) -> tuple[Any, int, int]:
        if type(value) in _SCALARS:
            return value, 1, 0
        key = id(value)  # of an object that the content keeps alive
        if key not in self.done:
            if depth > MAX_DEPTH:
                raise MalformedError(f"it is nested deeper than {MAX_DEPTH} levels")
            if key in self.open:
                raise MalformedError("it contains itself")
            self.open.add(key)
            self.done[key] = self._container(value, depth)
            self.open.remove(key)
        done = self.done[key]
        if depth + done[2] > MAX_DEPTH:
            raise MalformedError(f"it is nested deeper than {MAX_DEPTH} levels")
        return done

    def _container(self, value: Any, depth: int) -> tuple[Any, int, int]:
        if isinstance(value, (set, frozenset)):  # of scalars, see _pickle_names.keys
            return set(value), len(value) + 1, 1
        if isinstance(value, dict):
            keys, values = list(value), list(value.values())
        elif isinstance(value, (list, tuple)):
            keys, values = None, list(value)
        else:
            return self.leaf(value), 1, 0
        entries, deepest, copies = 1, 0, []
        for element in values:
            copied, count, levels = self.copy(element, depth + 1)
            entries += count
            deepest = max(deepest, levels)
            copies.append(copied)
            if entries > MAX_ENTRIES:
                raise MalformedError(f"it unfolds to more than {MAX_ENTRIES} entries")
        if keys is not None:
            return dict(zip(keys, copies, strict=True)), entries, deepest + 1
        return (tuple(copies) if isinstance(value, tuple) else copies), entries, deepest + 1
