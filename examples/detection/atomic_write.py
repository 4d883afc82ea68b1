"""Writes a file whole or not at all, and onto the disk: a loss of power, too, leaves the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from resnet_cuda._atomic_write import replaceable


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` at the end, on the disk, or is removed after an error.

    A kill leaves the old file or the new one. A symbolic link stays, and so do the permissions of an existing file.

    Raises:
        OSError: before the block, where ``path`` is a directory, a pipe or a device.
    """
    target, mode = replaceable(path)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # of a run that was killed; it may be read-only
    try:
        with unfinished.open("wb") as file:
            if mode is not None:
                unfinished.chmod(mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """So that the rename, too, outlives a loss of power."""
    if os.name == "nt":  # which opens no folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
