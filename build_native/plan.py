"""What will be built: from RESNET_CUDA_BUILD and from what this machine has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from build_native import architectures, systems, toolkit
from build_native.errors import BuildError

VARIABLE = "RESNET_CUDA_BUILD"
CHOICES = ("auto", "cpu", "cuda", "none")
OLDEST_TORCH = "2.10"


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
    compile_flags: tuple[str, ...] = ()  # CPPFLAGS and CXXFLAGS
    link_flags: tuple[str, ...] = ()  # LDFLAGS

    def describe(self) -> str:
        lines = [f"resnet_cuda build, {VARIABLE}={self.choice}"]
        if self.compiler is None:
            lines.append("nothing is compiled: pure Python, everything runs on the reference")
            return "\n  ".join([*lines, *self.remarks])
        lines.append(f"C++ compiler: {shlex.join(self.compiler)}")
        lines.append(
            f"torch headers: {self.torch.version} at {self.torch.root} (runs with any torch from {OLDEST_TORCH} on)"
        )
        if self.cuda:
            lines.append(f"CUDA toolkit: {self.cuda.version} at {self.cuda.root}, {self.cuda.nvcc}")
            lines.append(f"GPU architectures: {' '.join(self.architectures)}")
        else:
            lines.append("CUDA toolkit: none used")
        for what, flags in (("C++ files", self.compile_flags), ("linking", self.link_flags)):
            if flags:
                lines.append(f"flags for {what}: {shlex.join(flags)}")
        lines += self.remarks
        lines.append(f"will build: CPU kernels{' and CUDA kernels' if self.cuda else ' only'}")
        return "\n  ".join(lines)


def choice() -> str:
    value = os.environ.get(VARIABLE, "auto").strip() or "auto"
    if value not in CHOICES:
        raise BuildError(f"{VARIABLE} is {value!r}; allowed are {', '.join(CHOICES)}")
    return value


def compiles(chosen: str) -> bool:
    """Whether anything is compiled for the value ``chosen`` of RESNET_CUDA_BUILD on this system.

    Raises:
        BuildError: where it asks for what the system has not.
    """
    if chosen == "none" or systems.compiles():
        return chosen != "none"
    if chosen == "auto":
        return False
    raise BuildError(
        f"{VARIABLE} is {chosen!r}, but on Windows nothing can be compiled: {systems.WHY_NOT_ON_WINDOWS}. Leave "
        f"{VARIABLE} unset, or set it to none, for a pure Python install that runs on the slow reference"
    )


def words_of(*variables: str) -> tuple[str, ...]:
    """The words of environment variables such as CXXFLAGS, in the order given.

    Raises:
        BuildError: for an unclosed quote.
    """
    words: list[str] = []
    for variable in variables:
        try:
            words += shlex.split(os.environ.get(variable, ""))
        except ValueError as error:
            raise BuildError(f"{variable} is {os.environ[variable]!r}: {error}; quotes must end") from None
    return tuple(words)


def find_compiler() -> tuple[str, ...]:
    """$CXX, else the first of g++, c++ and clang++."""
    asked = words_of("CXX")
    for command in [asked] if asked else [("g++",), ("c++",), ("clang++",)]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f"no C++ compiler: {asked[0] if asked else 'g++, c++ and clang++'} not found. Install one "
        f"(Debian: apt install g++; macOS: xcode-select --install), or set {VARIABLE}=none for a pure Python install "
        "that runs on the slow reference"
    )


def find_torch() -> Torch:
    """Torch's place and version, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "torch is not installed where the build runs. Install it first when building with --no-build-isolation, or "
            f"set {VARIABLE}=none"
        )
    root, version = Path(spec.origin).parent, importlib.metadata.version("torch")
    if _release(version) < _release(OLDEST_TORCH):
        raise BuildError(
            f"torch {version} at {root} is too old: resnet_cuda needs torch {OLDEST_TORCH} or later, to build and to "
            f"run. pip install 'torch>={OLDEST_TORCH}', or set {VARIABLE}=none for a pure Python install"
        )
    if not (root / "include" / "torch" / "csrc" / "stable" / "library.h").exists():
        raise BuildError(f"torch {version} at {root} has no headers of the stable ABI: it is not a whole installation")
    return Torch(version, root)


def _release(version: str) -> tuple[int, int]:
    """(2, 10) of "2.10.0+cu128"; more than any for a text that is no version, such as "main"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (1 << 30, 0)


def make_plan() -> Plan:
    """Inspects the environment and decides what is built and how.

    Raises:
        BuildError: for an invalid variable, for a missing requirement of any build and, with RESNET_CUDA_BUILD=cuda,
            for a missing CUDA toolkit.
    """
    chosen = choice()
    if not compiles(chosen):
        return Plan(chosen, remarks=() if chosen == "none" else (f"on Windows: {systems.WHY_NOT_ON_WINDOWS}",))
    common = Plan(
        chosen,
        find_compiler(),
        find_torch(),
        compile_flags=words_of("CPPFLAGS", "CXXFLAGS"),
        link_flags=words_of("LDFLAGS"),
    )
    if chosen == "cpu":
        return common
    cuda, tried = toolkit.find_toolkit(common.compiler)
    remarks = tuple(f"not usable: {line}" for line in tried)
    if cuda is None:
        if chosen == "cuda":
            details = "; ".join(tried)
            raise BuildError(
                f"{VARIABLE}=cuda, but no usable CUDA toolkit was found: {details}. Install one (nvcc, "
                f"{toolkit.HEADER}, {toolkit.RUNTIME}), put its nvcc on the PATH or set CUDA_HOME; or set "
                f"{VARIABLE}=cpu"
            )
        return replace(common, remarks=remarks)
    chosen_architectures, reasons = architectures.choose(cuda.architectures)
    return replace(common, cuda=cuda, architectures=chosen_architectures, remarks=(*remarks, *reasons))
