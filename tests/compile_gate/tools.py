"""The tools of the compile gate: nvcc with the build's own flags, a disassembler, a demangler."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from build_native.architectures import OWN_ARCHITECTURE, SUPPORTED, architectures_of
from build_native.errors import BuildError
from build_native.native import cuda_sources, device_command
from build_native.plan import Plan, find_compiler, find_torch
from build_native.toolkit import find_toolkit


class UnavailableError(Exception):
    """A tool is not on this machine; the message says which."""


def code_name(architecture: str) -> str:
    return "sm_" + architecture.replace(".", "")


# What is promised, and the architectures that some files are compiled for alone.
GATED = (*SUPPORTED, *OWN_ARCHITECTURE.values())


def sources(architecture: str) -> list[Path]:
    """Every ``csrc/*/*.cu`` that is compiled for ``architecture``, the largest first, since the longest compilation
    should start first. An architecture of their own has only the files that no other has."""
    own = architecture in OWN_ARCHITECTURE.values()
    device = [
        path
        for path in cuda_sources()
        if path.suffix == ".cu" and (architectures_of(path.name, (architecture,)) == (architecture,))
        if path.name.endswith(tuple(OWN_ARCHITECTURE)) == own
    ]
    return sorted(device, key=lambda path: -path.stat().st_size)


def output_of(command: list[str], text: str | None = None) -> str:
    """What a command prints, stderr included.

    Raises:
        RuntimeError: with the command and what it printed, where it fails.
    """
    result = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if result.returncode != 0:
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(command)}\n{result.stdout}")
    return result.stdout


def _find(name: str, toolkit_root: Path) -> Path | None:
    """On the PATH, in the toolkit, or in Python packages: triton brings a disassembler along with torch for CUDA."""
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    places = [toolkit_root / "bin" / name]
    for folder in map(Path, sys.path):
        places += [folder / "triton" / "backends" / "nvidia" / "bin" / name, *folder.glob(f"nvidia/*/bin/{name}")]
    return next((path for path in places if path.is_file()), None)


@dataclass(frozen=True)
class Tools:
    plan: Plan
    demangler: Path

    @cached_property
    def command(self) -> list[str]:
        return device_command(self.plan)

    @cached_property
    def versions(self) -> str:
        """What the compiled code depends on beside the sources and the flags."""
        return f"{output_of([str(self.plan.cuda.nvcc), '--version'])} torch {self.plan.torch.version}"

    @cached_property
    def known_codes(self) -> frozenset[str]:
        listed = set(re.findall(r"sm_\w+", output_of([str(self.plan.cuda.nvcc), "--list-gpu-code"])))
        # nvcc does not list those with an "a" (from 12.0 on it has them).
        own = {code_name(architecture) for architecture in OWN_ARCHITECTURE.values()}
        return frozenset(listed | {code for code in own if code.rstrip("af") in listed})

    @cached_property
    def disassembler(self) -> Path | None:
        return _find("nvdisasm", self.plan.cuda.root)

    def require(self, architecture: str) -> None:
        """Raises UnavailableError where this nvcc is too old or too new for the architecture."""
        if code_name(architecture) not in self.known_codes:
            raise UnavailableError(f"nvcc {self.plan.cuda.version} knows no {code_name(architecture)}")

    def require_disassembler(self) -> None:
        if self.disassembler is None:
            raise UnavailableError(
                "no nvdisasm: not on the PATH, not in the CUDA toolkit, and no triton package (part of torch for CUDA)"
            )


def find_tools() -> Tools:
    """Looks around.

    Raises:
        UnavailableError: where the ``.cu`` files cannot be compiled on this machine.
    """
    try:
        compiler = find_compiler()
        toolkit, tried = find_toolkit(compiler)
        if toolkit is None:
            raise UnavailableError("no usable CUDA toolkit on this machine: " + "; ".join(tried))
        plan = Plan("cuda", compiler, find_torch(), toolkit)
    except BuildError as error:
        raise UnavailableError(str(error)) from None
    demangler = _find("c++filt", toolkit.root) or _find("cu++filt", toolkit.root)
    if demangler is None:
        raise UnavailableError("neither c++filt (binutils) nor cu++filt is installed")
    return Tools(plan, demangler)
