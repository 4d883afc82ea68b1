"""What a result was measured on: machine, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import resnet_cuda
from resnet_cuda import _extension

PACKAGES = ("torchvision", "onnxruntime", "openvino", "mmcv")


def processor() -> str:
    """The processor's name and the instruction set that our kernels use on it."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return name


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The commit of this checkout, with a mark where files differ from it; $COMMIT where this is a copy without git."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT", "unknown")


def describe(device: torch.device) -> dict[str, object]:
    """Facts that make a table repeatable."""
    facts: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "resnet_cuda": resnet_cuda.__version__,
        "torch": torch.__version__,
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "backend": resnet_cuda.backend(),
        "build": _extension.build_info(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = f"{properties.name}, {properties.multi_processor_count} SMs, {properties.total_memory >> 30} GiB"
    return facts
