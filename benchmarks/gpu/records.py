"""The result file: one JSON object per line, on disk as soon as it is known. Nothing here needs torch."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Results:
    """Appends records to ``path``; every record carries ``common`` (the device, above all)."""

    def __init__(self, path: Path, **common: object):
        self.path = path
        self.common = common

    def write(self, **record: object) -> None:
        """One line in one system call: two processes may append, and a killed one leaves at most its last line short."""
        line = json.dumps({**self.common, **record}, default=str) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read(path: Path | None) -> list[dict]:
    """All whole lines of a result file; none where there is no file."""
    if path is None or not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a process that was killed while writing
    return records


def latest(records: list[dict], **wanted: object) -> dict | None:
    """The last record that has all these values."""
    for record in reversed(records):
        if matches(record, wanted):
            return record
    return None


def matches(record: dict, wanted: dict) -> bool:
    """Whether a record has all these values."""
    return all(record.get(key) == value for key, value in wanted.items())


def best_known(record: dict | None) -> float | None:
    """Microseconds of a result line: GPU time, or wall time where the device has no events."""
    return None if record is None else record.get("gpu_us", record.get("wall_us"))
