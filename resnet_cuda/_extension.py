"""Loads the compiled libraries; the only file that does. A missing or broken one leaves the package on the reference."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
CUDA_LIBRARY = _FOLDER / "_cuda_kernels.so"

CPU_LOADED: bool = False
CUDA_LOADED: bool = False
CPU_ERROR: str | None = None
CUDA_ERROR: str | None = None

_module = None


def _load_cpu() -> None:
    """Imports ``_C``, whose static initialisers register the schemas and the CPU kernels."""
    global _module, CPU_LOADED, CPU_ERROR
    try:
        # torch is imported above: its libraries must be in the process before ours look for their symbols.
        from resnet_cuda import _C
    except ImportError as error:
        CPU_ERROR = str(error)
        built = any(_FOLDER.glob("_C.*"))
        cause = "cannot be loaded" if built else "is not built"
        warnings.warn(
            f"resnet_cuda: the compiled extension {cause}, so everything runs on the slow PyTorch reference ({error}). "
            "Reinstall with a C++ compiler at hand: pip install --force-reinstall --no-deps resnet_cuda (from a checkout: "
            "pip install --no-build-isolation .), RESNET_CUDA_BUILD not 'none'; torch must be 2.10 or later.",
            stacklevel=2,
        )
        return
    _module, CPU_LOADED = _C, True


def _load_cuda() -> None:
    """Loads the CUDA kernels where the running torch has CUDA; a CPU-only torch has no use and no symbols for them."""
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
    """Instruction set of the CPU kernels here: "avx512_bf16", "avx512", "avx2" or "portable"; None where they are not loaded."""
    return None if _module is None else _module.cpu_capability()


_load_cpu()
_load_cuda()
