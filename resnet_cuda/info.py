"""``python -m resnet_cuda info``: versions, build options, native operators, what this machine supports."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path

import torch

from resnet_cuda import _backend, _extension
from resnet_cuda._version import __version__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    names = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        names.append(f"{properties.name} (compute capability {properties.major}.{properties.minor})")
    return ", ".join(names)


def facts() -> dict[str, str]:
    """The facts that ``info`` prints, by name."""
    built = _extension.build_info()
    cpu = f"native, {_extension.cpu_capability()}" if _extension.CPU_LOADED else f"reference ({_extension.CPU_ERROR})"
    cuda = "native" if _extension.CUDA_LOADED else f"reference ({_extension.CUDA_ERROR})"
    return {
        "resnet_cuda": __version__,
        "folder": str(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "torchvision": _version("torchvision"),
        "built with torch": built.get("torch", "not built"),
        "built with CUDA": built.get("cuda", "not built"),
        "GPU architectures": built.get("architectures", "not built"),
        "compiler": built.get("compiler", "not built"),
        "backend": _backend.backend(),
        "CPU operators": cpu,
        "CUDA operators": cuda,
        "CPU threads": str(torch.get_num_threads()),
        "GPUs": _gpus(),
    }


def print_info(as_json: bool = False) -> None:
    """Prints a line per fact, or one JSON object whose keys have underscores for spaces."""
    found = facts()
    if as_json:
        print(json.dumps({name.replace(" ", "_"): value for name, value in found.items()}, indent=2))
        return
    for name, value in found.items():
        print(f"{name:>18}: {value}")
