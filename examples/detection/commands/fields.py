"""Command-line options made from the fields of an options dataclass, and read back."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Options = TypeVar("Options")

# Fields whose option has another name, or none: the data set gives those.
NAMES = {"kind": "--model", "dcn_stages": "--dcn"}
# Defaults that the command line decides.
DEFAULTS = {"kind": "by what the data set has", "milestones": ""}
NOT_ON_THE_COMMAND_LINE = ("class_names", "category_ids", "keypoint_names", "resume")


def option_name(field: str) -> str:
    return NAMES.get(field, "--" + field.replace("_", "-"))


def fields_of(kind: type) -> list[dataclasses.Field]:
    """Those that have an option."""
    return [field for field in dataclasses.fields(kind) if field.name not in NOT_ON_THE_COMMAND_LINE]


def add_options(parser: argparse.ArgumentParser, title: str, kind: type) -> None:
    """One option for each field of ``kind``; ``--help`` shows the field's text and default."""
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(kind)
    for field in fields_of(kind):
        notes = []
        if choices := field.metadata["choices"]:
            notes.append(f"one of {', '.join(choices)}")
        default = DEFAULTS.get(field.name, _shown(field.default))
        if default:
            notes.append(f"default: {default}")
        text = field.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
        group.add_argument(
            option_name(field.name),
            dest=field.name,
            # None is "not given": a configuration file or the default decides. A seed may stand before the command.
            default=argparse.SUPPRESS if field.name == "seed" else None,
            help=text.replace("%", "%%"),
            **_how_to_read(field.name, hints[field.name]),
        )


def override(options: Options, given: Mapping[str, Any]) -> Options:
    """``options`` with the fields that are in ``given`` and not None."""
    names = {field.name for field in dataclasses.fields(options)}
    return dataclasses.replace(
        options, **{name: value for name, value in given.items() if name in names and value is not None}
    )


def number_or_text(value: Any) -> Any:
    """YAML takes 1e-4 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def stages(text: str) -> tuple[bool, ...]:
    """C2 to C5 as four letters of 0 and 1."""
    if len(text) != 4 or set(text) - {"0", "1"}:
        raise argparse.ArgumentTypeError(f"{text!r} must be four of 0 and 1, for C2 to C5")
    return tuple(letter == "1" for letter in text)


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} must be yes or no")
    return text == "yes"


def _how_to_read(name: str, hint: Any) -> dict[str, Any]:
    if name == "dcn_stages":
        return {"type": stages, "metavar": "0111"}
    kind, several = _element(hint)
    reader: Callable[[str], Any] = yes_or_no if kind is bool else kind
    return {
        "type": reader,
        "metavar": {int: "N", float: "X", bool: "yes|no"}.get(kind, "NAME"),
        **({"nargs": "*", "action": _Tuple} if several else {}),
    }


def _element(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether the field holds several."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


class _Tuple(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        if value and all(isinstance(entry, bool) for entry in value):
            return "".join("01"[entry] for entry in value)
        return " ".join(map(str, value)) or "none"
    return str(value)
