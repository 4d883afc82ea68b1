"""Loads the compiled libraries. If one is missing or broken, records why; the package then runs on the reference."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import warnings
from pathlib import Path
from types import ModuleType

import torch

_FOLDER = Path(__file__).parent
CUDA_LIBRARY = _FOLDER / "_cuda_kernels.so"
_BUILD_MODE = "RESNET_CUDA_BUILD unset or 'auto'"

CPU_LOADED: bool = False
CUDA_LOADED: bool = False
CPU_ERROR: str | None = None
CUDA_ERROR: str | None = None

_module: ModuleType | None = None


def _compiled_elsewhere() -> Path | None:
    """Another folder of this package on ``sys.path``, with a library for this Python."""
    for entry in sys.path:
        folder = Path(entry or ".") / "resnet_cuda"
        library = folder / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        if library.is_file() and folder.resolve() != _FOLDER.resolve():
            return folder
    return None


def _why_missing() -> tuple[str, str]:
    """The message for a missing library: why there is none, and what to do."""
    parent = _FOLDER.parent
    is_checkout = (parent / "setup.py").is_file()
    compiled = _compiled_elsewhere()
    if compiled is not None:
        other = f"compile this one: pip install -e {parent}" if is_checkout else "take it off the path"
        return (
            f"{_FOLDER}, which has no compiled part, shadows the installed {compiled}, which has one",
            f"Run elsewhere than in {parent}, or {other}",
        )
    others = sorted(path.name for path in _FOLDER.glob("_C.*so"))
    if others:
        why = f"the extension in {_FOLDER} is for another Python ({', '.join(others)})"
    elif is_checkout:
        why = (
            f"the checkout at {parent} has no compiled part (never compiled, or installed with RESNET_CUDA_BUILD=none)"
        )
    else:
        why = f"{_FOLDER} was installed without its compiled part (RESNET_CUDA_BUILD=none)"
    if is_checkout:
        return why, f"Compile it, with a C++ compiler at hand: pip install -e {parent}, {_BUILD_MODE}"
    command = "pip install --force-reinstall --no-deps SOURCES"
    return why, f"Reinstall it from its sources with a C++ compiler at hand: {command}, {_BUILD_MODE}"


def _load_cpu() -> None:
    """Imports ``_C``, whose static initialisers register the schemas and the CPU kernels."""
    global _module, CPU_LOADED, CPU_ERROR
    try:
        # torch is imported above: its libraries must be in the process before ours look for their symbols.
        _module = importlib.import_module("resnet_cuda._C")
        _module.cpu_capability()  # raises for a value of RESNET_CUDA_CPU_CAPABILITY that is none
        CPU_LOADED = True
        return
    except ModuleNotFoundError as error:
        if error.name != "resnet_cuda._C":
            raise
        CPU_ERROR, remedy = _why_missing()
    except ImportError as error:
        CPU_ERROR = f"the compiled extension in {_FOLDER} cannot be loaded: {error}"
        remedy = (
            "Reinstall it from its sources with a C++ compiler at hand (from a checkout: pip install -e .), "
            f"{_BUILD_MODE}; torch must be 2.10 or later"
        )
    warnings.warn(
        f"resnet_cuda: {CPU_ERROR}. So everything runs on the slow PyTorch reference. {remedy}.", stacklevel=2
    )


def _load_cuda() -> None:
    """Loads the CUDA kernels where the running torch has CUDA; a CPU-only torch lacks the symbols that they need."""
    global CUDA_LOADED, CUDA_ERROR
    if not CPU_LOADED:
        CUDA_ERROR = "the compiled extension is not loaded"
    elif torch.version.cuda is None:
        CUDA_ERROR = f"torch {torch.__version__} is a CPU-only build"
    elif not CUDA_LIBRARY.exists():
        CUDA_ERROR = "built without its CUDA part; reinstall with a CUDA toolkit at hand and RESNET_CUDA_BUILD=cuda"
    else:
        try:
            torch.ops.load_library(str(CUDA_LIBRARY))
        except OSError as error:
            CUDA_ERROR = f"{CUDA_LIBRARY.name} cannot be loaded: {error}"
            return
        CUDA_LOADED = True


def build_info() -> dict[str, str]:
    """Versions that the extension was built with; empty where it is not loaded."""
    return {} if _module is None else dict(_module.build_info())


def cpu_capability() -> str | None:
    """Instruction set of the CPU kernels on this machine: "avx512_bf16", "avx512", "avx2" or "portable"; None where
    they are not loaded."""
    return None if _module is None else str(_module.cpu_capability())


_load_cpu()
_load_cuda()
