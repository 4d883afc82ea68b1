"""The machine instructions (SASS) of each kernel, and what kinds of them there are.

Names as nvdisasm prints them: an operation and its modifiers, ``LDG.E.128.CONSTANT``. Turing adds some of its own
(``LDG.E.128.SYS``, ``LDS.U.128``), Hopper and later write REDG for RED.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from compile_gate.compiling import write_whole
from compile_gate.tools import Tools, output_of

_SECTION = re.compile(r"^\s*\.section\s+\.text\.([\w$.]+)", re.MULTILINE)
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)")

_ATOMIC = frozenset({"ATOM", "ATOMG", "ATOMS", "RED", "REDG", "REDS", "SUATOM", "SURED", "UBLKRED", "UTMAREDG"})
_FLOAT = re.compile(r"B?F\d")  # F16x2, F32, F64, BF16; but not FTZ


def parse_sass(text: str) -> dict[str, Counter[str]]:
    """How often each instruction stands in each kernel, by mangled name. Subroutines count with their kernel."""
    starts = list(_SECTION.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return {
        start.group(1): Counter(_INSTRUCTION.findall(text, start.end(), end))
        for start, end in zip(starts, ends, strict=True)
    }


def disassemble(tools: Tools, cubin: Path) -> dict[str, Counter[str]]:
    """The instructions of a compiled file; kept beside it."""
    command = [str(tools.disassembler), "-c", str(cubin)]
    version = hashlib.sha256(output_of([str(tools.disassembler), "--version"]).encode()).hexdigest()[:8]
    kept = cubin.with_suffix(f".sass-{version}.json")
    if kept.exists():
        return {name: Counter(counts) for name, counts in json.loads(kept.read_text()).items()}
    kernels = parse_sass(output_of(command))
    write_whole(kept, json.dumps(kernels))
    return kernels


def _is_atomic(instruction: str) -> bool:
    return instruction.split(".")[0] in _ATOMIC


def is_local_memory(instruction: str) -> bool:
    return instruction.split(".")[0] in ("LDL", "STL")


def is_generic(instruction: str) -> bool:
    """An access of which the compiler no longer knows the kind of memory: slower, and it may be local."""
    return instruction.split(".")[0] in ("LD", "ST")


def is_compare_and_swap(instruction: str) -> bool:
    """CAS, and CAST.SPIN, the loop by which shared memory adds floats and 64-bit numbers."""
    return _is_atomic(instruction) and any(part in ("CAS", "CAST") for part in instruction.split("."))


def is_float_atomic(instruction: str) -> bool:
    return _is_atomic(instruction) and any(_FLOAT.match(part) for part in instruction.split("."))


def is_integer_atomic(instruction: str) -> bool:
    return _is_atomic(instruction) and not is_float_atomic(instruction) and not is_compare_and_swap(instruction)


def count_wide(instructions: Counter[str], operation: str) -> int:
    """How many accesses of 16 bytes (32 from Blackwell on) by LDG, STG, LDS or STS there are."""
    wide = {"128", "256"}
    return sum(
        count
        for name, count in instructions.items()
        if name.split(".")[0] == operation and not wide.isdisjoint(name.split("."))
    )


def having(instructions: Iterable[str], predicate) -> list[str]:
    return sorted(filter(predicate, instructions))
