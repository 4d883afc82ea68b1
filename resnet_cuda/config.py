"""The configuration that the backbone reads, at maskrcnn-benchmark's defaults, and that project's YAML files.

``cfg = get_cfg(); cfg.merge_from_file("e2e_mask_rcnn_R_50_FPN_1x.yaml"); build_backbone(cfg)``
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

# A section that is listed here is ours: an unknown key in it is an error. Keys of other sections (SOLVER, MODEL.RPN, ...)
# and those of MODEL.RETINANET besides USE_C5 belong to parts of a detector that are not here, and are ignored.
DEFAULTS: dict[str, dict[str, Any]] = {
    "BACKBONE": {"CONV_BODY": "R-50-C4", "FREEZE_CONV_BODY_AT": 2},
    "RESNETS": {
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 64,
        "STRIDE_IN_1X1": True,
        "TRANS_FUNC": "BottleneckWithFixedBatchNorm",
        "STEM_FUNC": "StemWithFixedBatchNorm",
        "RES5_DILATION": 1,
        "BACKBONE_OUT_CHANNELS": 256 * 4,
        "RES2_OUT_CHANNELS": 256,
        "STEM_OUT_CHANNELS": 64,
        "STAGE_WITH_DCN": (False, False, False, False),
        "WITH_MODULATED_DCN": False,
        "DEFORMABLE_GROUPS": 1,
    },
    "FPN": {"USE_GN": False, "USE_RELU": False},
    "GROUP_NORM": {"DIM_PER_GP": -1, "NUM_GROUPS": 32, "EPSILON": 1e-5},
    "RETINANET": {"USE_C5": True},
}
SHARED_SECTIONS = ("RETINANET",)


class Node:
    """A section: its keys are attributes, and only those that exist can be set."""

    def __init__(self, path: str, entries: dict[str, Any]):
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_entries", entries)

    def __getattr__(self, key: str) -> Any:
        try:
            return self.__dict__["_entries"][key]
        except KeyError:
            # copy and pickle ask for names before there are entries.
            raise AttributeError(f"{self.__dict__.get('_path', 'cfg')} has no key {key}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self._entries[key] = _checked(f"{self._path}.{key}", self._entries, key, value)

    def __deepcopy__(self, memo: dict) -> Node:
        return Node(self._path, copy.deepcopy(self._entries, memo))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self._entries == other._entries

    __hash__ = None

    def __repr__(self) -> str:
        return f"{self._path}: {self._entries!r}"


class Config(Node):
    """The root, with ``MODEL`` and the ways to fill it."""

    def __init__(self) -> None:
        sections = {name: Node(f"MODEL.{name}", dict(entries)) for name, entries in DEFAULTS.items()}
        super().__init__("cfg", {"MODEL": Node("MODEL", sections)})

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"cfg.{key} cannot be set; set keys of cfg.MODEL's sections or use merge_from_file")

    def __deepcopy__(self, memo: dict) -> Config:
        clone = Config()
        for name in DEFAULTS:
            getattr(clone.MODEL, name)._entries.update(copy.deepcopy(getattr(self.MODEL, name)._entries, memo))
        return clone

    def clone(self) -> Config:
        return copy.deepcopy(self)

    def merge_from_file(self, path: str | Path) -> None:
        """Takes over what one of maskrcnn-benchmark's YAML files says; nothing at all where the file is wrong.

        Raises:
            ValueError: naming the file, the wrong key or value, and what is allowed. The file cannot run code.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML file: {error}") from error
        try:
            self.merge_from_dict({} if content is None else content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def merge_from_dict(self, content: dict) -> None:
        """The same for nested dictionaries."""
        if not isinstance(content, dict):
            raise ValueError(f"the configuration is {type(content).__name__}; it must be sections with keys")
        model = content.get("MODEL") or {}
        if not isinstance(model, dict):
            raise ValueError(f"MODEL is {model!r}; it must be sections with keys")
        changes: list[tuple[Node, str, Any]] = []
        for section, entries in model.items():
            if section not in DEFAULTS:
                continue
            if not isinstance(entries, dict):
                raise ValueError(f"MODEL.{section} is {entries!r}; it must be keys with values")
            node = getattr(self.MODEL, section)
            for key, value in entries.items():
                if key not in node._entries and section in SHARED_SECTIONS:
                    continue
                changes.append((node, key, _checked(f"MODEL.{section}.{key}", node._entries, key, value)))
        for node, key, value in changes:
            node._entries[key] = value

    def merge_from_list(self, pairs: Sequence[Any]) -> None:
        """``["MODEL.RESNETS.NUM_GROUPS", 32, ...]`` [yacs]; values may be strings, as from a command line."""
        if len(pairs) % 2:
            raise ValueError(f"merge_from_list: {len(pairs)} entries; it must be pairs of key and value")
        content: dict[str, Any] = {}
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            parts = str(name).split(".")
            if parts[0] != "MODEL":
                continue
            if len(parts) != 3:
                raise ValueError(f"merge_from_list: key {name!r}; it must be MODEL.SECTION.KEY")
            content.setdefault(parts[1], {})[parts[2]] = value
        self.merge_from_dict({"MODEL": content})


def _parsed(value: Any) -> Any:
    """Strings that hold a Python literal, as the YAML files write tuples, become what they say."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _checked(path: str, entries: dict[str, Any], key: str, value: Any) -> Any:
    """``value`` in the type of the key's default."""
    if key not in entries:
        raise ValueError(f"unknown key {path}; allowed are {', '.join(sorted(entries))}")
    default = entries[key]
    if isinstance(default, Node):
        raise ValueError(f"{path} is a section; set its keys")
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"{path} is {value!r}; it must be a string")
        return value
    value = _parsed(value)
    if isinstance(default, tuple):
        if (
            not isinstance(value, (tuple, list))
            or len(value) != len(default)
            or not all(v in (True, False) for v in value)
        ):
            raise ValueError(f"{path} is {value!r}; it must be {len(default)} of True and False")
        return tuple(bool(v) for v in value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{path} is {value!r}; it must be True or False")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float) if isinstance(default, float) else int):
        raise ValueError(
            f"{path} is {value!r}; it must be {'a number' if isinstance(default, float) else 'an integer'}"
        )
    return type(default)(value)


def get_cfg() -> Config:
    """A configuration with every key that the backbone reads, at maskrcnn-benchmark's defaults."""
    return Config()
