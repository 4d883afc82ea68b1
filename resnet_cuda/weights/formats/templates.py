"""Key templates: one line gives a format's spelling of a neutral name, for reading and writing.

Neutral names, the same for every format:

- ``stem.conv.weight``, ``stem.norm.running_var``; of a deep stem ``stem.0.conv.weight`` to ``stem.2.norm.bias``;
- ``res4.0.conv2.weight``, ``res4.0.norm2.bias`` (res2 to res5); ``res4.0.offset.weight``, the convolution that predicts
  a deformable layer's offsets; ``res4.0.shortcut.conv.weight``, and ``shortcut_avg`` where average pooling precedes it;
- ``fpn.inner4.conv.weight``, ``fpn.outer4.norm.weight`` (1x1 and 3x3 of P2 to P5); ``fpn.p6.weight``, ``fpn.p7.bias``;
- ``gn`` in place of ``norm`` where the norm is group normalisation;
- for writing only: ``res4.0.deform`` for the ``conv2`` of a deformable layer, ``fpn.inner4.normed`` for the ``conv``
  before a norm, which some formats spell differently;
- ``classifier.weight``; ``head.`` before ``res5...``: the C5 head of a C4 detector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass
class Context:
    """Values on which the numbering in keys depends.

    Attributes:
        first_level: the pyramid level (2 for P2) with index 0 in formats that count from 0.
        laterals: the number of lateral convolutions; mmdetection continues with P6 and P7.
        block_counts: blocks of each stage, 2 to 5.
    """

    first_level: int = 2
    laterals: int = 4
    block_counts: Mapping[int, int] = field(default_factory=dict)


class Field(NamedTuple):
    """A number or word in a template. ``read`` gives the variable's value, ``write`` the text."""

    variable: str
    pattern: str
    read: Callable[[str, Context], str] = lambda text, context: text
    write: Callable[[str, Context], str] = lambda value, context: value


def _shifted(variable: str, pattern: str, shift: int) -> Field:
    return Field(
        variable,
        pattern,
        lambda text, context: str(int(text) - shift),
        lambda value, context: str(int(value) + shift),
    )


FIELDS = {
    "stage": Field("stage", "[2-5]"),
    "stage-1": _shifted("stage", "[1-4]", -1),
    "block": Field("block", r"\d{1,3}"),
    "k": Field("k", "[123]"),
    "abc": Field("k", "[abc]", lambda text, _: str("abc".index(text) + 1), lambda value, _: "abc"[int(value) - 1]),
    "leaf": Field("leaf", "|".join(LEAVES)),
    "wb": Field("wb", "weight|bias"),
    "level": Field("level", "[2-5]"),
    "level-1": _shifted("level", "[1-4]", -1),
    "i": Field(
        "level",
        r"\d",
        lambda text, context: str(int(text) + context.first_level),
        lambda value, context: str(int(value) - context.first_level),
    ),
    "extra": Field(  # P6 and P7, counted on from the levels that have a lateral convolution
        "p",
        r"\d",
        lambda text, context: str(int(text) - context.laterals + 6),
        lambda value, context: str(int(value) - 6 + context.laterals),
    ),
    "p": Field("p", "[67]"),
    "deep": Field("deep", "[012]"),
    "3deep": Field("deep", "[036]", lambda text, _: str(int(text) // 3), lambda value, _: str(int(value) * 3)),
    "3deep+1": Field("deep", "[147]", lambda text, _: str(int(text) // 3), lambda value, _: str(int(value) * 3 + 1)),
    # The last block of a stage, by which Caffe2 names a pyramid level: implied by the level, so written only.
    "last": Field("", r"\d{1,3}"),
}

_PLACEHOLDER = re.compile(r"\{([^}]+)\}")


class Rule:
    """``neutral`` and ``spelled`` are templates with the same variables; ``spelled`` may only be read, not written."""

    def __init__(self, neutral: str, spelled: str, read_only: bool = False):
        self.neutral = neutral
        self.spelled = spelled
        self.read_only = read_only
        self._spelled_pattern, self._spelled_fields = _compile(spelled)
        self._neutral_pattern, self._neutral_fields = _compile(neutral)

    def read(self, key: str, context: Context) -> str | None:
        """The neutral name of ``key``, or None if the template does not fit."""
        match = self._spelled_pattern.fullmatch(key)
        if match is None:
            return None
        values = {
            it.variable: it.read(text, context)
            for it, text in zip(self._spelled_fields, match.groups(), strict=True)
            if it.variable
        }
        name = _PLACEHOLDER.sub(lambda field: values[FIELDS[field.group(1)].variable], self.neutral)
        return name if self._neutral_pattern.fullmatch(name) else None

    def write(self, name: str, context: Context) -> str | None:
        """The key of a neutral name, or None."""
        match = None if self.read_only else self._neutral_pattern.fullmatch(name)
        if match is None:
            return None
        values = dict(zip((it.variable for it in self._neutral_fields), match.groups(), strict=True))

        def text(placeholder: re.Match[str]) -> str:
            if placeholder.group(1) == "last":
                return str(context.block_counts.get(int(values.get("level", 5)), 1) - 1)
            it = FIELDS[placeholder.group(1)]
            return it.write(values[it.variable], context)

        return _PLACEHOLDER.sub(text, self.spelled)


def _compile(template: str) -> tuple[re.Pattern[str], list[Field]]:
    parts, fields, end = [], [], 0
    for placeholder in _PLACEHOLDER.finditer(template):
        it = FIELDS[placeholder.group(1)]
        parts += [re.escape(template[end : placeholder.start()]), f"({it.pattern})"]
        fields.append(it)
        end = placeholder.end()
    return re.compile("".join((*parts, re.escape(template[end:])))), fields


def norm_rules(neutral: str, spelled: str, group: str | None = None, read_only: bool = False) -> tuple[Rule, Rule]:
    """Rules for a batch norm's tensors and for a group norm's, spelled ``group`` if given, else the same."""
    return (
        Rule(neutral + ".{leaf}", spelled + ".{leaf}", read_only),
        Rule(group_norm_name(neutral) + ".{leaf}", (group or spelled) + ".{leaf}", read_only),
    )


def group_norm_name(name: str) -> str:
    """The neutral name of a group norm in place of the batch norm ``name``."""
    return re.sub(r"\.norm(?=[.{123]|$)", ".gn", name)
