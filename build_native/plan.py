"""What will be built: from RESNET_CUDA_BUILD and from what this machine has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from build_native import architectures, toolkit
from build_native.errors import BuildError

VARIABLE = "RESNET_CUDA_BUILD"
CHOICES = ("auto", "cpu", "cuda", "none")


@dataclass(frozen=True)
class Torch:
    """The torch whose headers are used; the binary serves every torch from 2.10 on."""

    version: str
    root: Path


@dataclass(frozen=True)
class Plan:
    """``compiler`` is None where nothing is compiled, ``cuda`` where no CUDA part is."""

    choice: str
    compiler: tuple[str, ...] | None = None
    torch: Torch | None = None
    cuda: toolkit.Toolkit | None = None
    architectures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def describe(self) -> str:
        lines = [f"resnet_cuda build, {VARIABLE}={self.choice}"]
        if self.compiler is None:
            return "\n  ".join([*lines, "nothing is compiled: pure Python, everything runs on the reference"])
        lines.append(f"C++ compiler: {shlex.join(self.compiler)}")
        lines.append(f"torch headers: {self.torch.version} at {self.torch.root} (runs with any torch from 2.10 on)")
        if self.cuda:
            lines.append(f"CUDA toolkit: {self.cuda.version} at {self.cuda.root}, {self.cuda.nvcc}")
            lines.append(f"GPU architectures: {' '.join(self.architectures)}")
        else:
            lines.append("CUDA toolkit: none used")
        lines += self.remarks
        lines.append(f"will build: CPU kernels{' and CUDA kernels' if self.cuda else ' only'}")
        return "\n  ".join(lines)


def choice() -> str:
    value = os.environ.get(VARIABLE, "auto").strip() or "auto"
    if value not in CHOICES:
        raise BuildError(f"{VARIABLE} is {value!r}; allowed are {', '.join(CHOICES)}")
    return value


def find_compiler() -> tuple[str, ...]:
    """$CXX, else the first of g++, c++ and clang++."""
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["g++"], ["c++"], ["clang++"]]:
        if shutil.which(command[0]):
            return tuple(command)
    raise BuildError(
        f"no C++ compiler: {asked[0] if asked else 'g++, c++ and clang++'} not found. Install one (Debian: apt install g++), or "
        f"set {VARIABLE}=none for a pure Python install that runs on the slow reference"
    )


def find_torch() -> Torch:
    """Torch's place and version, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "torch is not installed where the build runs. Install it first when building with --no-build-isolation, or set "
            f"{VARIABLE}=none"
        )
    root = Path(spec.origin).parent
    if not (root / "include" / "torch" / "csrc" / "stable" / "library.h").exists():
        version = importlib.metadata.version("torch")
        raise BuildError(f"torch {version} has no stable ABI headers; resnet_cuda needs torch 2.10 or later")
    return Torch(importlib.metadata.version("torch"), root)


def make_plan() -> Plan:
    """Looks around and decides.

    Raises:
        BuildError: for a wrong variable, for what is missing to compile at all and, with RESNET_CUDA_BUILD=cuda, for a
            missing CUDA toolkit.
    """
    chosen = choice()
    if chosen == "none":
        return Plan(chosen)
    compiler, torch = find_compiler(), find_torch()
    if chosen == "cpu":
        return Plan(chosen, compiler, torch)
    cuda, tried = toolkit.find_toolkit()
    remarks = tuple(f"not usable: {line}" for line in tried)
    if cuda is None:
        if chosen == "cuda":
            details = "; ".join(tried)
            raise BuildError(
                f"{VARIABLE}=cuda, but no usable CUDA toolkit was found: {details}. Install one (nvcc, {toolkit.HEADER}, "
                f"{toolkit.RUNTIME}), put its nvcc on the PATH or set CUDA_HOME; or set {VARIABLE}=cpu"
            )
        return Plan(chosen, compiler, torch, remarks=remarks)
    chosen_architectures, origin = architectures.choose()
    return Plan(chosen, compiler, torch, cuda, chosen_architectures, (*remarks, f"architectures from: {origin}"))
