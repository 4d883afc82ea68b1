"""``--config FILE``: the options of ``train`` in YAML, such as the options.yaml that a training writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detection.commands.fields import NOT_ON_THE_COMMAND_LINE, number_or_text, stages
from detection.models.options import ModelOptions
from detection.training.options import TrainOptions

DATA = (
    "images",
    "annotations",
    "val_images",
    "val_annotations",
    "dataset",
    "val_dataset",
    "damaged",
    "weights",
    "weights_eps",
)
NUMBERS = [field.name for field in dataclasses.fields(TrainOptions) if "float" in str(field.type)]
PATHS = ("images", "annotations", "val_images", "val_annotations")


def read(path: Path) -> dict[str, Any]:
    """The values by the names of the options' fields; sections such as ``model:`` and ``train:`` are flattened.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--config {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path} is no YAML file: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(f"--config {path} is a {type(content).__name__}; it must be a mapping of options to values")
    allowed = {field.name for kind in (ModelOptions, TrainOptions) for field in dataclasses.fields(kind)} | {*DATA}
    values: dict[str, Any] = {}
    for name, value in _flat(content):
        if name not in allowed:
            raise ValueError(f"--config {path}: unknown option {name!r}; allowed are {', '.join(sorted(allowed))}")
        if name in NOT_ON_THE_COMMAND_LINE:
            continue  # what the data set said in the run that wrote the file
        if name in PATHS and value is not None:
            value = Path(value)
        if name == "dcn_stages" and isinstance(value, str):
            value = stages(value)
        elif name in NUMBERS:
            value = number_or_text(value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _flat(content: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in content.items():
        pairs += _flat(value) if isinstance(value, Mapping) else [(str(name).replace("-", "_"), value)]
    return pairs
