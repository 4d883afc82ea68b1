"""What a result was measured on: machine, versions, commit; a GPU's clocks."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

import resnet_cuda
from benchmarks.peers import PACKAGES
from resnet_cuda import _extension


def processor() -> str:
    """The processor's name."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
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


def describe_extension(device: torch.device) -> dict[str, object]:
    """Which package was imported, from where, with which kernels; and what of CUDA it depends on."""
    facts: dict[str, object] = {
        "imported": resnet_cuda.__file__,
        "cpu_extension": "loaded" if _extension.CPU_LOADED else _extension.CPU_ERROR,
        "cuda_extension": "loaded" if _extension.CUDA_LOADED else _extension.CUDA_ERROR,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if device.type == "cuda":
        facts["capability"] = "{}.{}".format(*torch.cuda.get_device_capability(device))
        facts["l2_bytes"] = torch.cuda.get_device_properties(device).L2_cache_size
    return facts


CLOCKS = {  # in a record: of nvidia-smi
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "most_sm_mhz": "clocks.max.sm",
    "celsius": "temperature.gpu",
    "watts": "power.draw",
    "driver": "driver_version",
}


def read_clocks(device: torch.device) -> dict[str, object]:
    """Clock rates, temperature and power by the names of ``CLOCKS``; or why there are none, under ``unknown``."""
    command = shutil.which("nvidia-smi")
    if device.type != "cuda" or command is None:
        return {"unknown": "no GPU" if device.type != "cuda" else "no nvidia-smi"}
    fields = [f"--query-gpu={','.join(CLOCKS.values())}", "--format=csv,noheader,nounits"]
    identifier = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    this_gpu = [] if identifier is None else ["-i", f"GPU-{identifier}"]
    try:
        result = subprocess.run([command, *fields, *this_gpu], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unknown": str(error)}
    values = [value.strip() for value in (result.stdout.strip().splitlines() or [""])[0].split(",")]
    if result.returncode != 0 or len(values) != len(CLOCKS):
        return {"unknown": (result.stdout + result.stderr).strip()[:200]}
    return dict(zip(CLOCKS, values, strict=True))
