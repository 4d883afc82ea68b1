"""Checkpoints: written atomically, loaded without running code from the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from detection.models.options import ModelOptions

KEYS = ("model", "optimizer", "iteration", "options", "seed")


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes atomically: to a file beside ``path``, then renamed. A kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads what :func:`save` wrote.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        raise ValueError(f"{path} is no readable checkpoint: {error}") from error
    missing = [key for key in KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; a checkpoint of this program has {', '.join(KEYS)}")
    return state


def options_of(path: Path, state: dict[str, Any]) -> ModelOptions:
    try:
        return ModelOptions.from_dict(state["options"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
