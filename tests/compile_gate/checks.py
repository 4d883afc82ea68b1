"""What is wrong with a kernel, by its row in the table of limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compile_gate.kernels import Kernel
from compile_gate.limits import FEW_BYTES, TOOLKIT, Limit
from compile_gate.sass import (
    count_wide,
    having,
    is_compare_and_swap,
    is_float_atomic,
    is_generic,
    is_integer_atomic,
    is_local_memory,
)


def rows_of(name: str, limits: Sequence[Limit]) -> list[Limit]:
    return [limit for limit in limits if re.fullmatch(limit.kernel, name)]


def row_faults(names: Iterable[str], limits: Sequence[Limit]) -> list[str]:
    """Kernels that have no row or several, and rows that no kernel has."""
    names = sorted(set(names))
    faults = []
    for name in names:
        rows = rows_of(name, limits)
        if len(rows) != 1:
            listed = ", ".join(repr(row.kernel) for row in rows) or "none"
            faults.append(f"{name} must match one row of limits.py, but matches {len(rows)}: {listed}")
    for limit in limits:
        if not any(re.fullmatch(limit.kernel, name) for name in names):
            faults.append(f"the row {limit.kernel!r} of limits.py matches no kernel")
    return faults


def resource_faults(kernel: Kernel, limit: Limit) -> list[str]:
    """Spills, a stack, or more registers than its row allows; with another toolkit, more than a few bytes."""
    resources, faults = kernel.resources, []
    allowed = 0 if kernel.toolkit == TOOLKIT else FEW_BYTES
    if max(resources.spill_stores, resources.spill_loads) > allowed:
        faults.append(f"spills {resources.spill_stores} bytes, loads {resources.spill_loads} back")
    if resources.stack > allowed:
        faults.append(f"has a stack of {resources.stack} bytes")
    if kernel.toolkit != TOOLKIT:
        return faults
    budget = limit.registers_on.get(kernel.architecture, limit.registers)
    if resources.registers > budget:
        row = f"its row {limit.kernel!r} in limits.py"
        faults.append(f"uses {resources.registers} registers on {kernel.architecture}, {row} allows {budget}")
    return faults


def instruction_faults(kernel: Kernel, limit: Limit) -> list[str]:
    """Instructions that no kernel, or not this one, may have."""
    forbidden = {
        "local memory": is_local_memory,
        "compare and swap": is_compare_and_swap,
        "a float atomic": is_float_atomic,
        "a generic access": is_generic,
    }
    if kernel.toolkit != TOOLKIT and kernel.resources.spill_stores:  # of which resource_faults judges
        del forbidden["local memory"]
    if not limit.integer_atomics:
        forbidden["an integer atomic, not listed for it"] = is_integer_atomic
    found = {what: having(kernel.instructions, predicate) for what, predicate in forbidden.items()}
    return [f"has {what}: {', '.join(names)}" for what, names in found.items() if names]


def wide_faults(kernel: Kernel, limit: Limit) -> list[str]:
    """Too few accesses of 16 bytes."""
    counts = {operation: count_wide(kernel.instructions, operation) for operation in limit.wide}
    return [
        f"has {counts[operation]} {operation} of 16 bytes, {least} are meant"
        for operation, least in limit.wide.items()
        if counts[operation] < least
    ]


def missing_faults(kernel: Kernel, limit: Limit) -> list[str]:
    """Another number of some instructions than is meant."""
    faults = []
    for name, meant in limit.exactly.items():
        parts = name.split(".")
        found = sum(count for it, count in kernel.instructions.items() if it.split(".")[: len(parts)] == parts)
        if found != meant:
            faults.append(f"has {found} {name}, {meant} are meant")
    return faults
