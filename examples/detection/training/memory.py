"""The greatest amount of memory that this process has used."""

from __future__ import annotations

import sys

import torch


def memory_mb(device: torch.device) -> float:
    """In MiB: on a GPU what torch had allocated, else the resident memory of this process without its workers.

    0 where the system does not tell: on Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
