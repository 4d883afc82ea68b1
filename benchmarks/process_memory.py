"""The memory that a call adds, and the setting of the C library's allocator while CPU kernels are timed.

By default glibc returns every large block to the system when it is freed, so that each new result costs a page fault
per page. On a virtual machine that takes several times as long as writing the result, and would make memory-bound
kernels incomparable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory of any size, as allocators that cache do; False where there is no glibc."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt(_M_MMAP_MAX, 0) == 1 and library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1
    except (AttributeError, OSError):
        return False


def _release_freed_memory() -> None:
    """Gives it back once, so that what the next call needs shows in the resident memory."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def peak_megabytes(call: Callable[[], object], device: torch.device) -> float | None:
    """The most memory that one call holds beyond what is held before it, its results included; None: not known."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    _release_freed_memory()
    try:
        # Linux sets the high-water mark of the resident set back to the present size.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    before = _status_megabytes("VmRSS")
    call()
    return max(0.0, _status_megabytes("VmHWM") - before)


def _status_megabytes(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no line {key}")
