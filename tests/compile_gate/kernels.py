"""A kernel as the gate sees it: its name, its resources, its instructions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from compile_gate.compiling import compile_source
from compile_gate.limits import TOOLKIT
from compile_gate.ptxas_report import Resources, parse_report
from compile_gate.sass import disassemble
from compile_gate.tools import Tools, code_name, output_of

# Kernels of CUDA's own headers, which torch's headers include.
_FOREIGN = re.compile(r"^(?:void )?(?:cub|thrust)::")
_NAMESPACES = re.compile(r"\b(?:resnet_cuda|device|c10|torch|headeronly)::|\(anonymous namespace\)::|_INTERNAL_\w+::")


@dataclass(frozen=True)
class Kernel:
    name: str  # "ForEachIndex<FrozenBnForward<Half, float>>"
    architecture: str
    resources: Resources
    instructions: Counter[str] | None  # None where there is no disassembler
    toolkit: str = TOOLKIT


def _matching(text: str, begin: int) -> int:
    """The index after the bracket that closes the one at ``begin``."""
    depth = 0
    for index in range(begin, len(text)):
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ValueError(f"unbalanced brackets in {text!r}")


def short_name(demangled: str) -> str:
    """The body's type for a kernel of the device layer, else the function's name; without namespaces and parameters."""
    name = _NAMESPACES.sub("", demangled).replace("> >", ">>").replace("> >", ">>").removeprefix("void ")
    bracket = re.search(r"[<(]", name)
    if bracket is None:
        return name
    end = bracket.start() if bracket.group() == "(" else _matching(name, bracket.start())
    name = name[:end]
    return name.removeprefix("run_body<").removesuffix(">") if name.startswith("run_body<") else name


def demangle(tools: Tools, names: list[str]) -> dict[str, str]:
    """The short names of our own kernels."""
    lines = output_of([str(tools.demangler)], "\n".join(names) + "\n").splitlines()
    return {name: short_name(line) for name, line in zip(names, lines, strict=True) if not _FOREIGN.match(line)}


def kernels_of(tools: Tools, source: Path, architecture: str, *flags: str) -> list[Kernel]:
    """Our kernels of a source, in the order of their names.

    Raises:
        RuntimeError: where it does not compile.
        ValueError: where a device function was not inlined, so that no kernel's figures include it.
    """
    compiled = compile_source(tools, source, architecture, *flags)
    resources = parse_report(compiled.log, code_name(architecture))
    instructions = disassemble(tools, compiled.cubin) if tools.disassembler else dict.fromkeys(resources)
    if instructions.keys() != resources.keys():
        differing = instructions.keys() ^ resources.keys()
        raise ValueError(f"{source.name}: functions of their own, or kernels without a report: {sorted(differing)}")
    toolkit = tools.plan.cuda.version
    kernels = [
        Kernel(name, architecture, resources[it], instructions[it], toolkit)
        for it, name in demangle(tools, list(resources)).items()
    ]
    return sorted(kernels, key=lambda kernel: kernel.name)
