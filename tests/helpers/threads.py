"""Calls that several threads make at the same time."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")


@contextlib.contextmanager
def frequent_switches() -> Iterator[None]:
    """Under the GIL a thread then has it for 10 us at most, not for 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(count: int, function: Callable[[int], Result]) -> list[Result]:
    """``function(0)`` to ``function(count - 1)``, each in a thread of its own, all begun at once.

    Raises:
        Exception: the first that one of them raised, when all have ended.
    """
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        together.wait()
        try:
            results[number] = function(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(count)]
