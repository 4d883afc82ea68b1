"""Configuration files in YAML, with the files that they extend (``_BASE_``). No file can run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from resnet_cuda.config_values import check_size

BASE = "_BASE_"


def load(path: str | os.PathLike, parents: tuple[Path, ...] = ()) -> dict[Any, Any]:
    """The content of ``path`` merged over its bases, whose names are relative to ``path`` [fvcore.common.config].

    Args:
        path: the YAML file.
        parents: the files whose ``_BASE_`` led here, to find a cycle.

    Raises:
        ValueError: for a file that is not YAML, holds no sections, or extends itself.
        OSError: if a file cannot be read.
    """
    file = Path(path)
    place = file.resolve()
    if place in parents:
        raise ValueError(f"{file} builds upon itself by {BASE}")
    content = _parsed(file)
    check_size(content)
    if not isinstance(content, dict):
        raise ValueError(f"the configuration is {type(content).__name__}; it must be sections with keys")
    bases = content.pop(BASE, [])
    merged: dict[Any, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise ValueError(f"{BASE} is {base!r}; it must be the path of a file, or a list of such")
        name = file.parent / os.path.expanduser(base)
        try:
            _merge(load(name, (*parents, place)), merged)
        except ValueError as error:
            raise ValueError(f"{BASE} {name}: {error}") from None
    _merge(content, merged)
    return merged


def _parsed(file: Path) -> Any:
    raw = file.read_bytes()
    try:
        content = yaml.safe_load(raw.decode("utf-8"))
    except Exception as error:  # not only YAMLError: PyYAML raises KeyError for `!!bool x`, RecursionError, and others
        raise ValueError(f"{file} is not a YAML file: {error or type(error).__name__}") from error
    return {} if content is None else content


def _merge(source: dict[Any, Any], target: dict[Any, Any], path: str = "") -> None:
    for key, value in source.items():
        existing = target.get(key)
        if isinstance(value, dict) and isinstance(existing, dict):
            _merge(value, existing, f"{path}{key}.")
        elif isinstance(value, dict) and existing is not None:
            raise ValueError(f"{path}{key} is a section; it is {existing!r} in the file that this one builds upon")
        else:
            target[key] = _own(value)


def _own(value: Any) -> Any:
    """A copy of a section: a YAML anchor's sections are one object, and merging must change only one of them."""
    return {key: _own(entry) for key, entry in value.items()} if isinstance(value, dict) else value
