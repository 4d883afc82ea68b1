"""A C++ file on the LibTorch stable ABI, compiled and loaded for a test."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import torch


def compiler() -> list[str]:
    """$CXX with its words, such as "ccache g++", as the build takes it."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def load_cpp(source: Path, folder: Path, *flags: str) -> None:
    """Compiles ``source`` into ``folder`` with ``flags`` and registers its operators."""
    root, library = Path(torch.__file__).parent, folder / f"{source.stem}.so"
    command = [
        *(*compiler(), "-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"),
        *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY", *flags),
        *("-isystem", str(root / "include"), str(source), "-L", str(root / "lib")),
        *("-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-o", str(library)),
    ]
    subprocess.run(command, check=True)
    torch.ops.load_library(str(library))
