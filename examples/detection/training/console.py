"""What a training prints: a bar on a terminal, else a line every so often."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm

from detection import distributed

RECENT = 100  # iterations from which the remaining time is told
LINES = 10  # at least, of a run of as many iterations


def say(text: str) -> None:
    """A line, on rank 0 only."""
    if distributed.rank() == 0 and text:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


class Progress:
    """The iterations after ``first``, of ``total``; this run ends after ``last`` (default: ``total``).

    There is a line for the run's first and last iterations and for each that ``every`` divides; in a short run, for
    more, so that they are about ten.
    """

    def __init__(self, first: int, total: int, every: int, last: int | None = None):
        self.total, self.last = total, total if last is None else last
        self.every = max(1, min(every, (self.last - first) // LINES))
        self._shown = (first + 1, self.last)
        shown = distributed.rank() == 0 and sys.stdout.isatty()
        self._bar = tqdm(total=total, initial=first, desc="train", unit="it", disable=not shown, file=sys.stdout)
        self._times = deque([time.monotonic()], RECENT + 1)

    def update(self, record: Mapping[str, float | int | None]) -> None:
        self._times.append(time.monotonic())
        iteration = record["iteration"]
        if not self._bar.disable:
            self._bar.set_postfix(loss=f"{record['total']:.3f}", lr=f"{record['learning_rate']:.3g}", refresh=False)
            self._bar.update()
        elif iteration % self.every == 0 or iteration in self._shown:
            say(self._line(record))

    def close(self) -> None:
        self._bar.close()

    def _line(self, record: Mapping[str, float | int | None]) -> str:
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        left = timedelta(seconds=round(each * (self.total - record["iteration"])))
        images = record["images_per_second"] * record["seconds"] / each
        width = len(str(self.total))
        memory = f"{record['memory_mb']:.0f} MB  " if record["memory_mb"] else ""  # which not every system tells
        return (
            f"iteration {record['iteration']:{width}}/{self.total}  loss {record['total']:.4f}  "
            f"lr {record['learning_rate']:.3g}  {images:.1f} images/s  "
            f"{memory}ETA {left}"
        )
