"""What a planted bug is, and the reports that several of them have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlantedBug:
    name: str
    file: str  # under csrc
    old: str
    new: str
    report: str  # a regular expression that the failing tests' output must match
    library: str  # of libraries.py; "operators/deform_conv" is built of that operator's sources only, see there
    tests: tuple[str, ...]  # of this folder, with pytest's -k behind the file where there is one
    sanitize: bool = False


LISTS_DIFFER = r"AssertionError: the lists differ"
WRONG_RESULT = r"AssertionError: (output|gradient for \w+) is off by "
WRONG_RESULT_OR_NAN = r"AssertionError: (output|gradient for \w+) (is off by|has NaN) "
WRONG_POSITION_GRADIENT = r"AssertionError: gradient for (offset|mask) is off by "
