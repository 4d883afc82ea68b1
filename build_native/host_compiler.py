"""The host compiler of nvcc, which takes one file and no words behind it, and not every version."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from build_native import commands
from build_native.errors import BuildError


def host_compiler(compiler: tuple[str, ...], folder: Path) -> str:
    """What ``-ccbin`` is given for $CXX: the command itself or, for several words such as "ccache g++", a script.

    The script lies in ``folder``. Its name follows from its contents, so that another $CXX compiles anew.
    """
    if len(compiler) == 1:
        return compiler[0]
    text = os.fsencode(f'#!/bin/sh\nexec {shlex.join(compiler)} "$@"\n')  # names of files may have any bytes
    script = folder / f"host_compiler_{hashlib.sha256(text).hexdigest()[:8]}"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:  # others may be writing it, too
            written = Path(temporary) / script.name
            written.write_bytes(text)
            written.chmod(0o755)
            written.replace(script)
    return str(script)


def ccbin(compiler: tuple[str, ...], folder: Path) -> list[str]:
    """nvcc's ``-ccbin``: $NVCC_CCBIN, the user's word about nvcc alone, or ``compiler``; nothing where nvcc's default,
    gcc, will do.

    Raises:
        BuildError: if $NVCC_CCBIN is neither a compiler nor a folder with one, as nvcc takes both.
    """
    asked = os.environ.get("NVCC_CCBIN")
    if asked:
        if not shutil.which(asked) and not os.path.isdir(asked):
            raise BuildError(
                f"NVCC_CCBIN is {asked!r}, which is not found; it must be one C++ compiler, such as g++-14, without "
                "options, or the folder that it is in"
            )
        return ["-ccbin", asked]  # nvcc reads it, too; in the command ninja sees that it has changed
    if os.environ.get("CXX") or not shutil.which("gcc"):
        return ["-ccbin", host_compiler(compiler, folder)]
    return []


def compile_nothing(folder: str) -> list[str]:
    """nvcc's arguments to compile an empty file, which is written into ``folder``."""
    source = Path(folder) / "empty.cu"
    source.touch()
    return ["-c", str(source), "-o", str(source.with_suffix(".o"))]


def check(device_command: list[str]) -> None:
    """Compiles an empty file for the GPU, before the kernels fail one by one with pages of errors.

    Raises:
        BuildError: with the first of nvcc's errors, and what to set.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = commands.run([*device_command, *compile_nothing(folder)])
    if result.returncode == 0:
        return
    lines = (result.stdout + result.stderr).strip().splitlines() or [f"exit status {result.returncode}"]
    first = next((line.strip() for line in lines if re.search(r"\b(error|fatal)\b", line)), lines[-1])
    raise BuildError(
        f"{shlex.quote(device_command[0])} cannot compile even an empty file with its host compiler, "
        f"{_named(device_command)}: {first}\nA CUDA toolkit takes host compilers and a C library up to certain "
        "versions. Set NVCC_CCBIN to a compiler that it takes, such as NVCC_CCBIN=g++-14, for the CUDA files alone, or "
        "CXX for all files; or use a newer toolkit; or set RESNET_CUDA_BUILD=cpu for no CUDA part"
    )


def _named(command: list[str]) -> str:
    for variable in ("NVCC_CCBIN", "CXX"):
        if os.environ.get(variable):
            return f"that of {variable}, {os.environ[variable]}"
    return command[command.index("-ccbin") + 1] if "-ccbin" in command else "gcc, the default"
