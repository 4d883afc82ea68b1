"""The log of a training: JSON lines and CSV always, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from detection.atomic_write import replacing

LINES, TABLE = "log.jsonl", "log.csv"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole records of a ``log.jsonl``; a line that a kill cut off is left out. [] where there is no file."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return [record for record in records if isinstance(record, dict) and "iteration" in record]


class Log:
    """``log.jsonl`` and ``log.csv`` in ``folder``, each record written through at once.

    A record of training has the iteration, counted from 1, and its numbers; one of validation has the iteration,
    ``validation`` (metrics by type) and ``primary``. The CSV has the records of training. What is there of iterations
    after the first ``done``, which a killed run did and this one repeats, is removed.
    """

    def __init__(self, folder: Path, done: int, tensorboard_every: int):
        self._folder = folder
        kept = [record for record in read_log(folder / LINES) if record["iteration"] <= done]
        _rewrite(folder / LINES, "".join(f"{json.dumps(record)}\n" for record in kept))
        self._lines = (folder / LINES).open("a", encoding="utf-8")
        self._table: TextIO | None = None
        self._columns: list[str] = []
        self._open_table([record for record in kept if "validation" not in record])
        self._every = tensorboard_every
        self._board = _tensorboard(folder, done)

    def training(self, record: Mapping[str, Any]) -> None:
        self._write_line(record)
        if not self._columns:
            self._open_table([record])
        else:
            csv.DictWriter(self._table, self._columns, extrasaction="ignore").writerow(record)
            self._table.flush()
        if self._board is not None and record["iteration"] % self._every == 0:
            for name, value in record.items():
                if name != "iteration" and value is not None:
                    self._board.add_scalar(f"train/{name}", value, record["iteration"])
            self._board.flush()

    def validation(self, iteration: int, metrics: Mapping[str, Mapping[str, float]], primary: str) -> None:
        self._write_line({"iteration": iteration, "validation": metrics, "primary": primary})
        if self._board is not None:
            for kind, values in metrics.items():
                for name, value in values.items():
                    self._board.add_scalar(f"validation/{kind}/{name}", value, iteration)
            self._board.flush()

    def sync(self) -> None:
        """Onto the disk, before a checkpoint that counts on it."""
        os.fsync(self._lines.fileno())

    def close(self) -> None:
        self._lines.close()
        if self._table is not None:
            self._table.close()
        if self._board is not None:
            self._board.close()

    def _write_line(self, record: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()

    def _open_table(self, records: list[Mapping[str, Any]]) -> None:
        path = self._folder / TABLE
        if not records:
            path.unlink(missing_ok=True)
            return
        self._columns = list(records[0])
        self._table = path.open("w", encoding="utf-8", newline="")
        writer = csv.DictWriter(self._table, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
        self._table.flush()


def _rewrite(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Viewers leave out what an earlier run wrote of the iterations that this one repeats.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
