"""Which C++ compilers are too old, said before they print pages of errors."""

from __future__ import annotations

import re
import shlex
import subprocess

from build_native import commands
from build_native.errors import BuildError

# GCC 9 has no -mavx512bf16, Clang 9 no ?: of vectors.
OLDEST = {"GCC": 10, "Clang": 11}


def identify(compiler: tuple[str, ...]) -> tuple[str, int] | None:
    """Such as ("GCC", 12), by the compiler's own macros: a name such as c++ says nothing. None if it does not tell."""
    command = [*compiler, "-dM", "-E", "-x", "c++", "-"]
    try:
        result = commands.run(command, input="", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    macros = dict(re.findall(r"^#define (__(?:GNUC|clang_major|apple_build_version)__) (\d+)", result.stdout, re.M))
    if "__apple_build_version__" in macros:  # numbers of its own
        return None
    for macro, name in (("__clang_major__", "Clang"), ("__GNUC__", "GCC")):  # Clang defines both
        if macro in macros:
            return name, int(macros[macro])
    return None


def check(compiler: tuple[str, ...]) -> None:
    """Raises BuildError if ``compiler`` is older than what the sources need."""
    identity = identify(compiler)
    if identity is None or identity[1] >= OLDEST[identity[0]]:
        return
    name, version = identity
    needed = " or ".join(f"{name} {oldest}" for name, oldest in OLDEST.items())
    raise BuildError(
        f"the C++ compiler, {shlex.join(compiler)}, is {name} {version}; the sources need {needed} or later. Set CXX "
        "to a newer one, such as CXX=g++-12 (it may be installed beside the old one; conda's package is gxx), or set "
        "RESNET_CUDA_BUILD=none for a pure Python install that runs on the slow reference"
    )


def quiet(compiler: tuple[str, ...]) -> list[str]:
    """Options against what older versions of Clang warn of in every file.

    Before 19 -fno-unsafe-math-optimizations is also -ftrapping-math, which native.py switches off again. Before 13
    "#pragma GCC unroll" is unknown.
    """
    name, version = identify(compiler) or ("", 0)
    if name != "Clang" or version >= 19:
        return []
    overriding = "-Wno-overriding-option" if version == 18 else "-Wno-overriding-t-option"
    return [overriding, *(["-Wno-unknown-pragmas"] if version < 13 else [])]
