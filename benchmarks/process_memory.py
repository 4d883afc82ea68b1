"""Where the memory of results comes from while CPU kernels are timed.

By default the C library gives every large result back to the system and gets it anew, page by page, at a fault each: on a virtual
machine that takes several times as long as writing it, and a comparison of memory-bound kernels would measure the system.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory of any size, as allocators that cache do; False where there is no glibc."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt(_M_MMAP_MAX, 0) == 1 and library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1
    except (AttributeError, OSError):
        return False


def release_freed_memory() -> None:
    """Gives it back once, so that what the next call needs shows in the resident memory."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
