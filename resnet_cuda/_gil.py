"""Whether threads of this Python run Python code side by side."""

from __future__ import annotations

import sys


def has_gil() -> bool:
    """False in a free-threaded Python, unless a module that cannot do without has turned the GIL on."""
    return sys.version_info < (3, 13) or sys._is_gil_enabled()
