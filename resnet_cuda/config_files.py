"""Configuration files in YAML, with the files that they extend (``_BASE_``). No file can run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from resnet_cuda.config_values import check_size

BASE = "_BASE_"


class _TwiceError(Exception):
    """A key that one section has twice."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice in one section; PyYAML would take the last and lose the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Not when the mapping is constructed: then what a merge key (<<) brings is among its own keys already.
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise _TwiceError(
                    f"the key {key!s:.80} comes twice in one section, in line {lines[key]} and in line {line}; only "
                    "one of them would be read"
                )
            lines[key] = line
        return node


def load(path: str | os.PathLike[str], parents: tuple[Path, ...] = ()) -> dict[Any, Any]:
    """The content of ``path`` merged over its bases, whose names are relative to ``path`` [fvcore.common.config].

    Args:
        path: the YAML file.
        parents: the files whose ``_BASE_`` led here, to find a cycle.

    Raises:
        ValueError: for a file that is not YAML, holds no sections or a key twice, or extends itself.
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
        content = yaml.load(raw.decode("utf-8"), _Loader)
    except _TwiceError as error:
        raise ValueError(str(error)) from None
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
