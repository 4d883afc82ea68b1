"""Finds a CUDA toolkit: by asking nvcc, wherever an nvcc is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build_native import commands
from build_native.folders import BUILT
from build_native.host_compiler import ccbin, compile_nothing

HEADER = "cuda_runtime.h"
RUNTIME = "libcudart_static.a"


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit that can compile and link."""

    nvcc: Path
    root: Path
    version: str  # "13.0"
    include: Path
    runtime: Path  # the static CUDA runtime
    architectures: tuple[str, ...]  # that it compiles for: "7.5", "8.0"


def candidates() -> Iterator[tuple[str, Path]]:
    """Every place where an nvcc may be, in the order of preference, and what named it."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        value = os.environ.get(variable)
        if value:
            yield variable, Path(value) / "bin" / "nvcc"
    on_path = shutil.which("nvcc")
    if on_path:
        yield "PATH", Path(on_path)
    for folder in map(Path, sys.path):
        for nvcc in sorted(folder.glob("nvidia/*/bin/nvcc"), reverse=True):
            yield "Python packages", nvcc
    yield "the usual place", Path("/usr/local/cuda/bin/nvcc")


def _output_of(command: list[str]) -> str:
    result = commands.run(command, timeout=60)
    if result.returncode != 0:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:] or [f"exit status {result.returncode}"]
        raise OSError(last[0])
    return result.stdout + result.stderr


def root_of(nvcc: Path, compiler: tuple[str, ...]) -> Path:
    """The toolkit's folder by nvcc's own word: the path may be a link or a wrapper script far from it.

    To say so nvcc needs its host compiler: for ``compiler`` see :func:`build_native.host_compiler.ccbin`. Its script
    lies where the build has it, since nothing may be executed in some folders for temporary files.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = _output_of([str(nvcc), "--dryrun", *ccbin(compiler, BUILT), *compile_nothing(folder)])
    match = re.search(r"^#\$ TOP=(.+)$", text, re.MULTILINE)
    if not match:
        raise OSError("nvcc --dryrun names no TOP folder")
    return Path(match.group(1).strip()).resolve()


def version_of(nvcc: Path) -> str:
    match = re.search(r"release (\d+\.\d+)", _output_of([str(nvcc), "--version"]))
    if not match:
        raise OSError("nvcc --version names no release")
    return match.group(1)


def architectures_of(nvcc: Path) -> tuple[str, ...]:
    """The compute capabilities that it compiles for."""
    numbers = re.findall(r"compute_(\d+)(\d)\b", _output_of([str(nvcc), "--list-gpu-arch"]))
    if not numbers:
        raise OSError("nvcc --list-gpu-arch names no architecture")
    return tuple(f"{major}.{minor}" for major, minor in numbers)


def _find_below(root: Path, name: str, folders: tuple[str, ...]) -> Path:
    for folder in folders:
        for path in sorted(root.glob(f"{folder}/{name}")):
            return path
    raise OSError(f"{name} is not in {', '.join(folders)} below {root}")


def inspect(nvcc: Path, compiler: tuple[str, ...]) -> Toolkit:
    """The toolkit of one nvcc.

    Raises:
        OSError: naming the missing part.
    """
    if not nvcc.exists():
        raise OSError("no such file")
    root = root_of(nvcc, compiler)
    header = _find_below(root, HEADER, ("include", "targets/*/include"))
    runtime = _find_below(root, RUNTIME, ("lib64", "lib", "targets/*/lib"))
    return Toolkit(nvcc, root, version_of(nvcc), header.parent, runtime, architectures_of(nvcc))


def find_toolkit(compiler: tuple[str, ...]) -> tuple[Toolkit | None, list[str]]:
    """The first usable toolkit and, for the report, what was tried before it without success.

    ``compiler`` is that of the C++ files.
    """
    tried: list[str] = []
    seen: set[Path] = set()
    for origin, nvcc in candidates():
        if nvcc in seen:
            continue
        seen.add(nvcc)
        try:
            return inspect(nvcc, compiler), tried
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{nvcc} (from {origin}): {error}")
    return None, tried
