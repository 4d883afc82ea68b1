"""Clock rates, temperature and power, as nvidia-smi tells them; nothing is ever set."""

from __future__ import annotations

import shutil
import subprocess

import torch

FIELDS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "most_sm_mhz": "clocks.max.sm",
    "celsius": "temperature.gpu",
    "watts": "power.draw",
    "driver": "driver_version",
}


def read_clocks(device: torch.device) -> dict[str, object]:
    """By the names of ``FIELDS``; a reason under ``unknown`` where they cannot be read."""
    if device.type != "cuda":
        return {"unknown": "no GPU"}
    command = shutil.which("nvidia-smi")
    if command is None:
        return {"unknown": "no nvidia-smi"}
    fields = [f"--query-gpu={','.join(FIELDS.values())}", "--format=csv,noheader,nounits"]
    identifier = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    this_gpu = [] if identifier is None else ["-i", f"GPU-{identifier}"]
    try:
        result = subprocess.run([command, *fields, *this_gpu], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unknown": str(error)}
    values = [value.strip() for value in (result.stdout.strip().splitlines() or [""])[0].split(",")]
    if result.returncode != 0 or len(values) != len(FIELDS):
        return {"unknown": (result.stdout + result.stderr).strip()[:200]}
    return dict(zip(FIELDS, values, strict=True))
