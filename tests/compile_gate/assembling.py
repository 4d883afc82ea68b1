"""PTX of this machine's nvcc, assembled by another toolkit's ptxas: how its kernels use registers, and what it says.

For toolkits whose Python packages have no nvcc, which are those before 13.0.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

from compile_gate.checks import resource_faults
from compile_gate.kernels import Kernel, demangle
from compile_gate.limits import Limit
from compile_gate.ptxas_report import parse_report, warnings_in
from compile_gate.tools import Tools, code_name, output_of, sources

_NO_LIMIT = Limit(".*", 255)  # of registers
_VERSION = re.compile(r"^\.version \d+\.\d+", re.MULTILINE)
_NEWEST = re.compile(r"current version is '(\d+\.\d+)'")


def write_ptx(tools: Tools, source: Path, architecture: str, target: Path) -> None:
    virtual = code_name(architecture).replace("sm_", "compute_")
    output_of([*tools.command, f"-arch={virtual}", "-ptx", str(source), "-o", str(target)])


@cache
def codes_of(ptxas: Path) -> frozenset[str]:
    """The architectures that it assembles for: ``sm_75`` and so on."""
    return frozenset(re.findall(r"'(sm_\w+)'", output_of([str(ptxas), "--help"])))


@cache
def isa_of(ptxas: Path) -> str:
    """The newest version of PTX that it takes, by its own word."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "newer.ptx"
        source.write_text(".version 99.0\n.target sm_80\n.address_size 64\n")
        try:
            said = output_of([str(ptxas), "-arch=sm_80", str(source), "-o", str(source.with_suffix(".cubin"))])
        except RuntimeError as error:
            said = str(error)
    newest = _NEWEST.search(said)
    if newest is None:
        raise ValueError(f"{ptxas} does not say which version of PTX it takes: {said}")
    return newest.group(1)


def assemble(ptxas: Path, isa: str, ptx: Path, architecture: str) -> str:
    """What ``ptxas -v`` says. The PTX is marked as of the older version ``isa``: ptxas refuses what that has not.

    Raises:
        RuntimeError: with ptxas' messages.
    """
    older = ptx.with_suffix(f".{isa}.ptx")
    older.write_text(_VERSION.sub(f".version {isa}", ptx.read_text(), count=1))
    command = [str(ptxas), "-v", f"-arch={code_name(architecture)}", str(older), "-o", str(older.with_suffix(".cubin"))]
    try:
        return output_of(command)
    finally:
        older.unlink()


def faults_in(tools: Tools, log: str, architecture: str, toolkit: str) -> list[str]:
    """What ptxas warns of, and kernels that spill more than a few bytes."""
    resources = parse_report(log, code_name(architecture))
    faults = warnings_in(log)
    for mangled, name in demangle(tools, list(resources)).items():
        kernel = Kernel(name, architecture, resources[mangled], None, toolkit)
        faults += [f"{name}: {fault}" for fault in resource_faults(kernel, _NO_LIMIT)]
    return faults


def assembled_faults(tools: Tools, ptxas: dict[str, Path], architecture: str, folder: Path) -> dict[str, list[str]]:
    """The faults by toolkit, of those of ``ptxas`` that know the architecture; an empty list where all is well."""
    knowing = {it: path for it, path in ptxas.items() if code_name(architecture) in codes_of(path)}
    faults: dict[str, list[str]] = {toolkit: [] for toolkit in knowing}
    for source in sources(architecture) if knowing else ():
        ptx = folder / f"{source.stem}.ptx"
        write_ptx(tools, source, architecture, ptx)
        for toolkit, path in knowing.items():
            try:
                log = assemble(path, isa_of(path), ptx, architecture)
            except RuntimeError as error:
                faults[toolkit].append(f"{source.name}: {error}")
            else:
                faults[toolkit] += faults_in(tools, log, architecture, toolkit)
    return faults
