"""The range of an option that is a number."""

from __future__ import annotations

import math
from numbers import Real

from detection.models.checks import refuse


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses what is not a finite number of at least ``least``, above ``above``, at most ``most``, below ``below``."""
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    allowed = " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        refuse(name, value, f"a number {allowed}")
    if (
        (least is not None and value < least)
        or (above is not None and value <= above)
        or (most is not None and value > most)
        or (below is not None and value >= below)
    ):
        refuse(name, value, allowed)
