"""What the processes of one test run share: locks, and folders that only one of them fills."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits until nobody else, of this process's threads or another process, holds the lock on ``file``."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)  # given back with the file, also where the process dies
        yield


def run_folder(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of this test run: the same one for all processes of pytest-xdist."""
    own = factory.getbasetemp()
    return own.parent if hasattr(config, "workerinput") else own


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder``, filled by ``make(folder)`` in the process that comes first; the others wait for it."""
    with locked(folder.with_suffix(".lock")):
        complete = folder / "complete"
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process in which it failed
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
