"""The table that ``make gate`` prints: registers and spills of every kernel on every architecture."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from compile_gate.compiling import compile_source
from compile_gate.gate import Gate
from compile_gate.kernels import Kernel
from compile_gate.sass import count_wide, is_integer_atomic
from compile_gate.tools import GATED, Tools, UnavailableError, code_name, find_tools, sources

OPERATIONS = ("LDG", "STG", "LDS", "STS")


def _spills(kernel: Kernel) -> int:
    return kernel.resources.spill_stores + kernel.resources.spill_loads


def _least(kernels: Iterable[Kernel], count) -> str:
    """The smallest count on any architecture; a dash for none or where there is no disassembler."""
    counts = [count(kernel.instructions) for kernel in kernels if kernel.instructions is not None]
    return str(min(counts, default=0) or "-")


def _integer_atomics(instructions: Counter[str]) -> int:
    return sum(count for name, count in instructions.items() if is_integer_atomic(name))


def row_of(name: str, kernels: Mapping[str, Kernel], architectures: Sequence[str]) -> list[str]:
    """Name, registers/spilled bytes per architecture, shared bytes, 16-byte accesses by kind, integer atomics."""
    figures = [
        f"{kernels[it].resources.registers}/{_spills(kernels[it])}" if it in kernels else "-" for it in architectures
    ]
    shared = str(max(kernel.resources.shared for kernel in kernels.values()))
    wide = [
        _least(kernels.values(), lambda instructions, kind=operation: count_wide(instructions, kind))
        for operation in OPERATIONS
    ]
    return [name, *figures, shared, *wide, _least(kernels.values(), _integer_atomics)]


def render(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


def kernel_table(gate: Gate, architectures: Sequence[str]) -> str:
    kernels: dict[str, dict[str, Kernel]] = {}
    for architecture in architectures:
        for kernel in gate.kernels(architecture):
            kernels.setdefault(kernel.name, {})[architecture] = kernel
    head = ["kernel: registers/spilled bytes", *map(code_name, architectures), "shared"]
    head += [f"{operation}.128" for operation in OPERATIONS] + ["atomics"]
    return render([head, *(row_of(name, kernels[name], architectures) for name in sorted(kernels))])


def time_table(tools: Tools, architectures: Sequence[str]) -> str:
    """Seconds that each file took when it was compiled, which may be earlier."""
    rows = [["seconds to compile", *map(code_name, architectures)]]
    compiled = {architecture: sources(architecture) for architecture in architectures}
    for source in dict.fromkeys(path for paths in compiled.values() for path in paths):
        times = [
            f"{compile_source(tools, source, architecture).seconds:.1f}" if source in compiled[architecture] else "-"
            for architecture in architectures
        ]
        rows.append([source.name, *times])
    return render(rows)


def main() -> None:
    try:
        tools = find_tools()
    except UnavailableError as error:
        sys.exit(f"compile gate: {error}")
    architectures = [it for it in GATED if code_name(it) in tools.known_codes]
    gate = Gate(tools, architectures)
    print(
        f"nvcc {tools.plan.cuda.version}, nvdisasm: {tools.disassembler or 'none, so nothing below comes from SASS'}\n"
    )
    print(kernel_table(gate, architectures), time_table(tools, architectures), sep="\n\n")
    gate.close()
