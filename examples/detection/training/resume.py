"""Whether a checkpoint is of the training that shall go on, and what goes on otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from detection import distributed
from detection.models.options import ModelOptions
from detection.training import checkpoint
from detection.training.options import SAME, TOLD, TrainOptions

KEYS = ("optimizer", "scaler", "ema", "samples", "best", "validated", "train_options", "world_size")


def check(path: Path, state: Mapping[str, Any], model_options: ModelOptions, options: TrainOptions) -> None:
    """Refuses a checkpoint whose course the present options cannot continue.

    Raises:
        ValueError: naming the file, the options that differ and their values.
    """
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise ValueError(
            f"{path} cannot be resumed, it lacks {', '.join(missing)}; {checkpoint.FROM_ELSEWHERE}, and give another "
            "--output"
        )
    before = checkpoint.options_of(path, state)
    differences = [
        _difference(f"model option {it.name}", getattr(before, it.name), getattr(model_options, it.name))
        for it in fields(ModelOptions)
        if getattr(before, it.name) != getattr(model_options, it.name)
    ]
    differences += [_difference(name, old, new) for name, old, new in _differing(state["train_options"], options, SAME)]
    if differences:
        raise ValueError(
            f"{path} is of another training: {'; '.join(differences)}; give the same, or another --output, or "
            "--no-resume"
        )


def changes(state: Mapping[str, Any], options: TrainOptions) -> list[str]:
    """A line for each option that goes on with another value, and changes the course from here on."""
    lines = [
        f"goes on with {name} {_shown(new)} (it was {_shown(old)})"
        for name, old, new in _differing(state["train_options"], options, TOLD)
    ]
    if state["world_size"] != distributed.world_size():
        lines.append(f"goes on with {distributed.world_size()} processes (it was {state['world_size']})")
    return lines


def _differing(before: Mapping[str, Any], options: TrainOptions, kind: str) -> list[tuple[str, Any, Any]]:
    return [
        (it.name, before.get(it.name, it.default), getattr(options, it.name))
        for it in fields(options)
        if it.metadata["resume"] == kind and before.get(it.name, it.default) != getattr(options, it.name)
    ]


def _difference(name: str, old: Any, new: Any) -> str:
    return f"{name} is {_shown(new)}, and there {_shown(old)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value!r:.200}"
