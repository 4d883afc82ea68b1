"""The limits of every kernel, in one table.

A name is matched as a whole, by exactly one row; a row that matches no kernel is refused as well. For no kernel at all:
spills, a stack, local memory, compare-and-swap loops, float atomics (their sums depend on the order of arrival).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """``wide`` says how many accesses of 16 bytes there must be at least: LDG and STG (global), LDS and STS (shared)."""

    kernel: str  # a regular expression
    registers: int  # per thread, at most
    registers_on: Mapping[str, int] = field(default_factory=dict)  # the same where an architecture needs more
    wide: Mapping[str, int] = field(default_factory=dict)
    integer_atomics: bool = False


LIMITS = (
    Limit(r"ForEachIndex<FrozenBn(Forward|Backward)<.*>>", 38),
    Limit(r"ForEachIndex<(SampleColumns|ScatterInputGradient)<.*>>", 58),
    Limit(r"ForEachIndex<PositionGradients<(Half|BFloat16|float), float>>", 88),
    Limit(r"ForEachIndex<PositionGradients<double, double>>", 104),
    Limit(r"ForEachIndex<(AddBias|Accumulate)<.*>>", 38),
)
