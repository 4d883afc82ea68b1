"""The result file: one JSON object per line, on disk as soon as it is known. Nothing here needs torch."""

import json
import os
from pathlib import Path

# The "phase" of a record: which part of a GPU run it belongs to.
FIRST_CALLS, CEILINGS, CORRECTNESS, PEERS = "0", "1", "2", "3"
DEFORM_CONV, KERNELS, FROZEN_BN, BACKBONES, MEMORY, HOST = "4", "5", "6", "7", "8", "9"


class Results:
    """Appends records to ``path``; every record carries ``common`` (the device, above all)."""

    def __init__(self, path: Path, **common: object):
        self.path = path
        self.common = common

    def write(self, **record: object) -> None:
        """One line in one system call: two processes may append; a killed one leaves at most its last line short."""
        line = json.dumps({**self.common, **record}, default=str) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read(path: Path) -> list[dict]:
    """All whole lines of a result file."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a process that was killed while writing
    return records


def select(records: list[dict], **wanted: object) -> list[dict]:
    """The records that have all these values."""
    return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]


def latest(records: list[dict], **wanted: object) -> dict | None:
    """The last record that has all these values."""
    return next(reversed(select(records, **wanted)), None)


def microseconds(record: dict) -> float:
    """Of a timing's record: GPU time, or wall time where the device has no events."""
    return record.get("gpu_us", record.get("wall_us"))
