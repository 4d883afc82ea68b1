"""``--config FILE``: the options of ``train`` in YAML, such as the options.yaml that a training writes."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
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
    "orientation",
    "weights",
    "weights_eps",
)
OTHER_NAMES = {"dcn": "dcn_stages", "model": "kind"}  # as on the command line
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
        name = OTHER_NAMES.get(name, name)
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(sorted(allowed))}"
            raise ValueError(f"--config {path}: unknown option {name!r}; {hint}")
        if name in NOT_ON_THE_COMMAND_LINE:
            continue  # what the data set said in the run that wrote the file
        if name in DATA:
            value = _text(path, name, value)
        elif name == "dcn_stages":
            value = _stages(path, value)
        elif name in NUMBERS:
            value = number_or_text(value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _text(path: Path, name: str, value: Any) -> Any:
    if name == "weights_eps" or value is None:
        return number_or_text(value)
    if not isinstance(value, str):
        raise ValueError(f"--config {path}: {name} is {value!r}; it must be a text")
    return Path(value) if name in PATHS else value


def _stages(path: Path, value: Any) -> Any:
    """``0111`` without quotes is an octal number in YAML."""
    if isinstance(value, int):
        raise ValueError(
            f"--config {path}: dcn_stages is {value}; write it in quotes, '0111', or as a list of booleans"
        )
    try:
        return stages(value) if isinstance(value, str) else value
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--config {path}: dcn_stages: {error}") from error


def _flat(content: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in content.items():
        pairs += _flat(value) if isinstance(value, Mapping) else [(str(name).replace("-", "_"), value)]
    return pairs
