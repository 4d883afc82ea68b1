"""Runs compilers and the like for what they print."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` with the output as text, whatever its bytes.

    Compilers write messages in the encoding of their own locale, and names of files may have any bytes.
    """
    encoding = sys.getfilesystemencoding()
    return subprocess.run(command, capture_output=True, encoding=encoding, errors="surrogateescape", **options)
