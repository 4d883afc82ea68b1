"""Which CUDA versions the driver of this machine runs."""

from __future__ import annotations

import ctypes


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA version that the driver supports, (12, 6); None where there is no driver.

    ``cuDriverGetVersion`` needs no ``cuInit``, after which a process could no longer be forked.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")  # the name by which the CUDA runtime finds it
        version = ctypes.c_int()
        failed = driver.cuDriverGetVersion(ctypes.byref(version)) != 0
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def is_too_old(driver: tuple[int, int], toolkit: str) -> bool:
    """Whether the runtime of ``toolkit`` ("13.0") refuses the driver: one of the same major version will do ("CUDA
    Compatibility", minor version compatibility)."""
    major = toolkit.split(".")[0]
    return major.isdigit() and driver[0] < int(major)
