"""What differs between operating systems: whether anything is compiled there, and how a library is linked."""

from __future__ import annotations

import sys
from pathlib import Path

# torch for Windows is made for Microsoft's compiler, which lacks the vector types that the CPU kernels are written in.
WHY_NOT_ON_WINDOWS = "the C++ code is for GCC and Clang on Linux and macOS. To compile it use Linux, in WSL 2, say"


def compiles() -> bool:
    """Whether the compiled part can be built on this system."""
    return sys.platform != "win32"


def linker(compiler: tuple[str, ...]) -> list[str]:
    """The command that links a library for Python or torch to load, without its files."""
    # The running interpreter has Python's symbols, wherever it lies; Apple's linker would want to know where.
    python = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    return [*compiler, "-shared", *python]


def torch_libraries(folder: Path) -> list[str]:
    """torch's libraries below ``folder``, which a library must name even where the linker sees no use of them."""
    # Some distributions' compilers pass --as-needed. Apple's linker has neither option, and keeps every library.
    keep = [] if sys.platform == "darwin" else ["-Wl,--no-as-needed"]
    return [f"-L{folder}", *keep, "-ltorch", "-ltorch_cpu"]
