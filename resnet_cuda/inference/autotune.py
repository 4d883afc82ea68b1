"""An autotuner: the fastest of several implementations on this machine, timed once per shape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping

# Timing costs some launches per candidate; a detector sees a new size with every few images.
MOST_TIMED = 8


class Autotuner:
    """Times several calls when it first sees a key, and remembers the fastest.

    One thread times at a time: kernels of another would be measured, too. After ``MOST_TIMED`` keys nothing is timed
    any more: a new key gets the most frequent choice that it has. Copies and pickles are empty, since another machine
    may choose otherwise.
    """

    def __init__(self) -> None:
        self.chosen: dict[Hashable, str] = {}
        self._timing = threading.Lock()

    def choose(
        self, key: Hashable, calls: Mapping[str, Callable[[], object]], seconds: Callable[[Callable[[], object]], float]
    ) -> str:
        """The name of the fastest of ``calls``; the first of them must always work.

        Args:
            seconds: times a call; a call that raises RuntimeError is not chosen.
        """
        chosen = self.chosen.get(key)
        if chosen is not None:
            return chosen
        with self._timing:
            return self.chosen.get(key) or self._timed(key, calls, seconds)

    def _timed(
        self, key: Hashable, calls: Mapping[str, Callable[[], object]], seconds: Callable[[Callable[[], object]], float]
    ) -> str:
        first = next(iter(calls))
        if len(self.chosen) >= MOST_TIMED:
            frequent = Counter(name for name in self.chosen.values() if name in calls)
            return frequent.most_common(1)[0][0] if frequent else first
        times: dict[str, float] = {}
        for name, call in calls.items():
            try:
                times[name] = seconds(call)
            except RuntimeError:
                if name == first:
                    raise
        self.chosen[key] = min(times, key=times.__getitem__)
        return self.chosen[key]

    def __deepcopy__(self, _memo: dict) -> Autotuner:
        return Autotuner()

    def __reduce__(self) -> tuple:
        return Autotuner, ()
