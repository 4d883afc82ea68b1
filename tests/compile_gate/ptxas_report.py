"""What ``ptxas -v`` says about each kernel, and what the compilers warn of."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_CUMULATIVE = re.compile(r"(\d+) bytes cumulative stack size")
_SHARED = re.compile(r"(\d+) bytes smem")
# The compiler's about our own files, ptxas's about our kernels, which has numbers from C7500 on for wgmma that it
# serialises and registers that it does not hand over; not nvcc's about architectures that it will drop.
_WARNING = re.compile(r"^(?:\S*csrc/\S+\(\d+\): warning|ptxas warning|ptxas info\s*: \(C7[56]\d\d\)).*", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    registers: int
    spill_stores: int  # bytes, as the following
    spill_loads: int
    stack: int  # of the kernel and all that it calls
    shared: int  # static; the launch's dynamic shared memory is not in the report


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match.group(1)) if match else 0


def parse_report(text: str, code: str) -> dict[str, Resources]:
    """By mangled name, for the architecture ``sm_..``.

    Raises:
        ValueError: where a kernel's part of the report lacks its lines; the format is not the one expected then.
    """
    kernels: dict[str, Resources] = {}
    entries = list(_ENTRY.finditer(text))
    ends = [entry.start() for entry in entries[1:]] + [len(text)]
    for entry, end in zip(entries, ends, strict=True):
        if entry.group(2) != code:
            continue
        part = text[entry.end() : end]
        # A function that was not inlined has a frame line of its own in the kernel's part: all of them count.
        frames = [tuple(map(int, frame.groups())) for frame in _FRAME.finditer(part)]
        registers = _REGISTERS.search(part)
        if not frames or not registers:
            raise ValueError(f"ptxas -v says nothing about {entry.group(1)}:\n{part}")
        stack, stores, loads = (sum(values) for values in zip(*frames, strict=True))
        stack = max(stack, _number(_CUMULATIVE, part))
        kernels[entry.group(1)] = Resources(int(registers.group(1)), stores, loads, stack, _number(_SHARED, part))
    return kernels


def warnings_in(text: str) -> list[str]:
    return list(dict.fromkeys(match.group() for match in _WARNING.finditer(text)))
