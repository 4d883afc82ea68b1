"""The folder of a training: used by one at a time, and never of two trainings at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from detection import distributed
from detection.training.log import LINES, read_log
from detection.training.state import TrainingState

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
# Of a run. The checkpoint is the first to be moved: without it nothing can be resumed that is only half there.
FILES = ("checkpoint.pt", "best.pt", "log.*", "options.yaml", "curves.png", "tensorboard")
MOVING = ".before.unfinished"
NOT_OF_THE_RUN = ("resume", "stop_after")  # but of how it was started


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """On rank 0, makes the folder and holds it for this training; the system lets it go when the process ends.

    Raises:
        ValueError: where another training holds it.
    """
    if distributed.rank() != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        _lock(file, folder)
        yield


def _lock(file: Any, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        # Not flock, whose lock a forked worker shares: it would outlive its parent's kill by seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise ValueError(f"{folder} is in use by another training ({_holder(file.read())})") from None
    except OSError:  # a file system without locks
        return
    file.truncate(0)
    file.write(f"{os.getpid()} {socket.gethostname()}")
    file.flush()


def _holder(text: str) -> str:
    process, _, host = text.partition(" ")
    elsewhere = f" on {host}" if host and host != socket.gethostname() else ""
    return f"process {process}{elsewhere}" if process else "which has just begun"


def put_aside(folder: Path) -> Path | None:
    """Moves an earlier run's files to ``before-1``, ``before-2``, ...; None where none was there worth keeping.

    All of them or, after a kill in the middle, all that is left the next time: they become ``before-1`` at the end.
    """
    moving = folder / MOVING
    kept = any((folder / name).exists() for name in ("checkpoint.pt", "best.pt", MOVING)) or read_log(folder / LINES)
    if not kept:
        return None
    moving.mkdir(exist_ok=True)
    for pattern in FILES:
        for path in sorted(folder.glob(pattern)):
            path.replace(moving / path.name)
    number = 1
    while (folder / f"before-{number}").exists():
        number += 1
    return moving.rename(folder / f"before-{number}")


def write_options(
    folder: Path, state: TrainingState, weights: Any, weights_eps: float | None, notes: dict[str, Any]
) -> None:
    """``options.yaml``: all that the run was told, as ``--config`` reads it."""
    train = {name: it for name, it in state.options.as_dict().items() if name not in NOT_OF_THE_RUN}
    content: dict[str, Any] = {"model": state.model_options.as_dict(), "train": train}
    data = {name: it for name, it in notes.items() if it is not None}
    if data:
        content["data"] = data
    if isinstance(weights, (str, Path)):
        content["weights"] = weights
        if weights_eps is not None:
            content["weights_eps"] = weights_eps
    text = yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True)
    (folder / "options.yaml").write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """YAML has no tuples and no paths."""
    if isinstance(value, dict):
        return {name: _plain(it) for name, it in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(it) for it in value]
    return str(value) if isinstance(value, Path) else value
