"""``python -m resnet_cuda info``: versions, build options, native operators, what this machine supports."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import runpy
import sysconfig
from pathlib import Path

import torch

from resnet_cuda import _backend, _extension
from resnet_cuda._gil import has_gil
from resnet_cuda._version import __version__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _python() -> str:
    version = platform.python_version()
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return version
    return f"{version}, free-threaded, with the GIL {'on' if has_gil() else 'off'}"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    names = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        names.append(f"{properties.name} (compute capability {properties.major}.{properties.minor})")
    return ", ".join(names)


def _compiled_part(sources: str | None) -> str:
    """The version and sources that it was built from, and whether they are those of this package."""
    version = _extension.compiled_version()
    if version is None:
        return "not built" if _extension.library() is None else "of an unknown version"
    text = f"version {version}" if sources is None else f"version {version}, sources {sources}"
    now = None if sources is None else _sources_beside()
    if version != __version__:
        return f"{text}; the Python files are of version {__version__}: run {_extension.install_again()}"
    if now not in (None, sources):
        return f"{text}; csrc beside it has changed since ({now}): run {_extension.install_again()}"
    return text


def _sources_beside() -> str | None:
    """The digest of a checkout's sources; None for an installed package."""
    checkout = Path(__file__).resolve().parents[1]
    file = checkout / "build_native" / "sources.py"
    if not file.is_file() or not (checkout / "csrc").is_dir():
        return None
    return str(runpy.run_path(str(file))["digest"](checkout / "csrc"))


def facts() -> dict[str, str]:
    """The facts that ``info`` prints, by name."""
    built = _extension.build_info()
    cpu = f"native, {_extension.cpu_capability()}" if _extension.CPU_LOADED else f"reference ({_extension.CPU_ERROR})"
    cuda = "native" if _extension.CUDA_LOADED else f"reference ({_extension.CUDA_ERROR})"
    return {
        "resnet_cuda": __version__,
        "folder": str(Path(__file__).parent),
        "python": _python(),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "torchvision": _version("torchvision"),
        "compiled part": _compiled_part(built.get("sources")),
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


def info(as_json: bool = False) -> str:
    """A line per fact, or one JSON object whose keys have underscores for spaces."""
    found = facts()
    if as_json:
        return json.dumps({name.replace(" ", "_"): value for name, value in found.items()}, indent=2)
    return "\n".join(f"{name:>18}: {value}" for name, value in found.items())
