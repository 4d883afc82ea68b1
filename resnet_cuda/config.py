"""The configuration of the backbone, with maskrcnn-benchmark's defaults; reads that project's YAML files.

``cfg = get_cfg(); cfg.merge_from_file("e2e_mask_rcnn_R_50_FPN_1x.yaml"); build_backbone(cfg)``
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from resnet_cuda import config_files
from resnet_cuda.config_defaults import DEFAULTS, SHARED_SECTIONS
from resnet_cuda.config_values import check_size, checked, decoded, encoded, near_miss, plain

__all__ = ["DEFAULTS", "CfgNode", "get_cfg"]

_INTERNAL = ("_path", "_known", "_open", "_frozen")


class CfgNode(dict):
    """A section: a dictionary whose keys are attributes, too, with the methods of yacs' CfgNode.

    A key that the backbone reads has the type of its default; an unknown key in the same section is an error, and so is
    one that differs from a section's or key's name only by case, one letter at the end or dots. All other keys are
    foreign: any key and any value that YAML can hold, kept unchanged. Dictionaries become sections. A merge
    that raises changes nothing.

    Differences from yacs: foreign keys need not exist before they are merged and have no type; a frozen node rejects
    every way of writing, merges and ``[]`` included; a merge of strings reads Python literals at every depth.

    Args:
        init_dict: content of a section with foreign keys: ``cfg.SOLVER = CfgNode({"BASE_LR": 0.02})``.
    """

    def __init__(self, init_dict: Mapping[Any, Any] | None = None):
        self._set_internals("", {}, True)
        if init_dict is not None:
            if not isinstance(init_dict, Mapping):
                raise ValueError(f"CfgNode: init_dict is {init_dict!r}; it must be a dictionary")
            check_size(init_dict)
            for key, value in init_dict.items():
                self[key] = value

    def _set_internals(self, path: str, known: Mapping[str, Any], is_open: bool) -> None:
        """``known``: defaults of the keys, or the sections, that the backbone reads; ``is_open``: allow other keys."""
        for name, value in zip(_INTERNAL, (path, known, is_open, False), strict=True):
            object.__setattr__(self, name, value)

    def _name(self, key: Any) -> str:
        return f"{self._path}.{key}" if self._path else str(key)

    # Reading

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"{self._path or 'cfg'} has no key {key}") from None

    def __str__(self) -> str:
        lines = []
        for key in sorted(self, key=str):
            value = self[key]
            text = str(value).replace("\n", "\n  ")
            lines.append(f"{key}:\n  {text}" if isinstance(value, CfgNode) else f"{key}: {text}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(key for key in self if isinstance(key, str))]

    def dump(self, **options: Any) -> str | None:
        """YAML that merges back to an equal configuration; ``options`` are those of ``yaml.safe_dump``."""
        return yaml.safe_dump(self._plain(), **options)

    def _plain(self) -> dict[Any, Any]:
        result = {}
        for key, value in self.items():
            if isinstance(value, CfgNode):
                result[key] = value._plain()
            else:  # a string that the backbone reads needs no quoting: checked() does not decode it
                result[key] = value if isinstance(self._known.get(key), str) else encoded(value, self._name(key))
        return result

    # Writing

    def _write(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)

    def _refuse_frozen(self, key: Any, value: Any) -> None:
        if self._frozen:
            raise AttributeError(f"Attempted to set {self._name(key)} to {value!r}, but CfgNode is immutable")

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse_frozen(key, value)
        check_size(value)
        if self._known_section(key):
            raise ValueError(f"{self._path or 'cfg'}.{key} is a section; set its keys")
        self._write(key, self._value(key, value, decode=False))

    def __setattr__(self, key: str, value: Any) -> None:
        self._refuse_frozen(key, value)
        if hasattr(type(self), key) or key in _INTERNAL:
            raise AttributeError(f"{self._name(key)} cannot be an attribute, it is one of every CfgNode; use ['{key}']")
        self[key] = value

    def __delitem__(self, key: Any) -> None:
        if key in self:
            self._refuse_frozen(key, None)
            if key in self._known:
                raise ValueError(f"{self._name(key)} cannot be removed; the backbone reads it")
        super().__delitem__(key)

    def __delattr__(self, key: str) -> None:
        if key not in self:
            raise AttributeError(f"{self._path or 'cfg'} has no key {key}")
        del self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        for key in reversed([key for key in self if key not in self._known]):
            return key, self.pop(key)
        raise KeyError(f"{self._path or 'cfg'} has no key that can be removed")

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **keys: Any) -> None:
        for key, value in dict(*others, **keys).items():
            self[key] = value

    def __ior__(self, other: Any) -> CfgNode:  # type: ignore[misc]
        self.update(other)
        return self

    # Merging

    def merge_from_file(self, cfg_filename: str | os.PathLike[str]) -> None:
        """Merges one of maskrcnn-benchmark's YAML files; a file with an error changes nothing.

        ``_BASE_`` names one or several files that this one extends, as in detectron2.

        Raises:
            ValueError: naming the file, the wrong key or value, and what is allowed. The file cannot run code.
            OSError: if a file cannot be read.
            AttributeError: if the node is frozen.
        """
        try:
            self.merge_from_dict(config_files.load(cfg_filename))
        except ValueError as error:
            if str(error).startswith(str(cfg_filename)):
                raise
            raise ValueError(f"{cfg_filename}: {error}") from None

    def merge_from_other_cfg(self, cfg_other: Mapping[Any, Any]) -> None:
        """Merges another CfgNode, of this package or of yacs; errors as :meth:`merge_from_dict`."""
        self.merge_from_dict(cfg_other)

    def merge_from_dict(self, content: Mapping[Any, Any]) -> None:
        """Merges nested dictionaries.

        Raises:
            ValueError: naming the wrong key or value, and what is allowed.
            AttributeError: if the node is frozen.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"the configuration is {type(content).__name__}; it must be sections with keys")
        check_size(content)
        changes: list[tuple[CfgNode, Any, Any]] = []
        self._collect_changes(content, changes)
        for node, key, value in changes:
            node._write(key, value)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``["MODEL.RESNETS.NUM_GROUPS", 32, ...]`` [yacs]; values may be strings from a command line.

        Raises:
            ValueError, AttributeError: as :meth:`merge_from_dict`; ValueError also for a key without a value.
        """
        if isinstance(cfg_list, (str, Mapping)) or not isinstance(cfg_list, Sequence):
            raise ValueError(f"merge_from_list: cfg_list is {cfg_list!r}; it must be a list of keys and values")
        if len(cfg_list) % 2:
            raise ValueError(f"merge_from_list: {len(cfg_list)} entries; it must be pairs of key and value")
        content: dict[str, Any] = {}
        for name, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            parts = name.split(".") if isinstance(name, str) else [""]
            if not all(parts):
                raise ValueError(f"merge_from_list: key {name!r}; it must be names with dots between, SECTION.KEY")
            section: Any = content
            for part in parts[:-1]:
                section = section.setdefault(part, {})
                if not isinstance(section, dict):
                    raise ValueError(f"merge_from_list: key {name!r} is in {part}, which another pair gives a value")
            if isinstance(section.get(parts[-1]), dict):
                raise ValueError(f"merge_from_list: key {name!r} is a section, in which another pair sets a key")
            section[parts[-1]] = value
        self.merge_from_dict(content)

    @property
    def _is_model_section(self) -> bool:
        return self._known is DEFAULTS

    def _known_section(self, key: Any) -> bool:
        return isinstance(self._known.get(key), Mapping)

    def _collect_changes(self, content: Mapping[Any, Any], changes: list[tuple[CfgNode, Any, Any]]) -> None:
        """Checks ``content`` and appends to ``changes`` what is to be written, in order."""
        for key, value in content.items():
            existing = self.get(key)
            if isinstance(existing, CfgNode):
                if value is None and existing._is_model_section:  # an empty `MODEL:`
                    continue
                if isinstance(value, str) and not self._known_section(key):
                    value = decoded(value)
                if not isinstance(value, Mapping):
                    kind = "sections with keys" if existing._is_model_section else "keys with values"
                    raise ValueError(f"{self._name(key)} is {value!r}; it must be {kind}")
                existing._collect_changes(value, changes)
                continue
            self._refuse_frozen(key, value)
            new = self._value(key, value, decode=True)
            if isinstance(new, CfgNode) and existing is not None:
                raise ValueError(f"{self._name(key)} is a section; it must be a value, as it is {existing!r} now")
            changes.append((self, key, new))

    def _value(self, key: Any, value: Any, decode: bool) -> Any:
        """What is stored for ``value``: checked where the backbone reads ``key``, else a copy."""
        if key in self._known:
            return checked(self._name(key), self._known[key], value)
        if not self._open:
            raise ValueError(f"unknown key {self._name(key)}; allowed are {', '.join(sorted(self._known))}")
        if key == config_files.BASE:
            raise ValueError(f"{config_files.BASE} is for files only")
        if decode:
            value = decoded(value)
        meant = near_miss(key, value, self._known)
        if meant is not None:
            raise ValueError(f"unknown key {self._name(key)}, which nothing would read; write {self._name(meant)}")
        if not isinstance(value, Mapping):
            return plain(value, self._name(key))
        section = CfgNode()
        section._set_internals(self._name(key), {}, True)
        for name, entry in value.items():
            section._write(name, section._value(name, entry, decode))
        return section

    # Freezing and copying

    def freeze(self) -> None:
        """Makes every write to this node and its sections an AttributeError."""
        self._set_frozen(True)

    def defrost(self) -> None:
        """Undoes :meth:`freeze`."""
        self._set_frozen(False)

    def is_frozen(self) -> bool:
        return self._frozen

    def _set_frozen(self, frozen: bool) -> None:
        object.__setattr__(self, "_frozen", frozen)
        for value in self.values():
            if isinstance(value, CfgNode):
                value._set_frozen(frozen)

    def clone(self) -> CfgNode:
        """A deep copy, frozen if this node is."""
        clone = CfgNode()
        clone._set_internals(self._path, self._known, self._open)
        for key, value in self.items():
            clone._write(key, value.clone() if isinstance(value, CfgNode) else plain(value, self._name(key)))
        object.__setattr__(clone, "_frozen", self._frozen)
        return clone

    copy = __copy__ = clone

    def __deepcopy__(self, memo: dict) -> CfgNode:
        return self.clone()

    def __reduce__(self) -> tuple:
        known = None if self._known is DEFAULTS else self._known  # so that `is DEFAULTS` holds after unpickling
        return _restored, (self._path, known, self._open, self._frozen, dict(self))


def _restored(
    path: str, known: Mapping[str, Any] | None, is_open: bool, frozen: bool, entries: dict[Any, Any]
) -> CfgNode:
    node = CfgNode()
    node._set_internals(path, DEFAULTS if known is None else known, is_open)
    for key, value in entries.items():
        node._write(key, value)
    object.__setattr__(node, "_frozen", frozen)
    return node


def get_cfg() -> CfgNode:
    """A configuration with every key that the backbone reads, and maskrcnn-benchmark's defaults."""
    cfg, model = CfgNode(), CfgNode()
    cfg._set_internals("", {"MODEL": DEFAULTS}, True)
    model._set_internals("MODEL", DEFAULTS, True)
    for name, entries in DEFAULTS.items():
        section = CfgNode()
        section._set_internals(f"MODEL.{name}", entries, name in SHARED_SECTIONS)
        for key, value in entries.items():
            section._write(key, value)
        model._write(name, section)
    cfg._write("MODEL", model)
    return cfg
