"""Checkpoints: written atomically, loaded without running code from the file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detection.atomic_write import replacing
from detection.models.build import build_model
from detection.models.options import ModelOptions

KEYS = ("model", "options", "iteration")  # of every checkpoint; best.pt has no more
FROM_ELSEWHERE = "to start from its weights, give it as --weights"


class SaveError(OSError):
    """A checkpoint could not be written; the one before it is still there."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes atomically: to a file beside ``path``, then renamed. A kill leaves the old file or the new one.

    Raises:
        SaveError: where the disk is full, the folder cannot be written, or ``path`` is a directory, a pipe or a device.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch turns the file's OSError into a RuntimeError of its own
        kept = "; the checkpoint before it is kept" if path.is_file() else ""
        raise SaveError(f"{path} cannot be saved: {_reason(error)}{kept}") from error


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads what :func:`save` wrote in a training.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no checkpoint: torch.save did not write it, or not to its end")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds, some with a page of advice
        raise ValueError(
            f"{path} is no checkpoint of this program, or damaged: torch.load(weights_only=True) refuses it; if it is "
            f"from elsewhere, {FROM_ELSEWHERE}"
        ) from error
    missing = [key for key in KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise ValueError(f"{path} is no checkpoint of this program, it lacks {', '.join(missing)}; {FROM_ELSEWHERE}")
    return state


def options_of(path: Path, state: dict[str, Any]) -> ModelOptions:
    try:
        return ModelOptions.from_dict(state["options"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_model(path: Path, device: torch.device) -> tuple[nn.Module, ModelOptions]:
    """The checkpoint's model in eval mode on ``device``, with the averaged weights where the training kept some.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    state = load(path, torch.device("cpu"))  # the optimizer's part need not fit on the device
    options = options_of(path, state)
    model = build_model(options)
    try:
        model.load_state_dict({**state["model"], **(state.get("ema") or {})})
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its weights do not fit its model options: {error}") from error
    return model.to(device).eval(), options


def _reason(error: BaseException) -> str:
    """The system's reason behind torch's message, such as "No space left on device"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
