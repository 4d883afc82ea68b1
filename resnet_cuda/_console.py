"""What a program prints: names of files, classes and parameters may have characters that the output's encoding lacks.

On Windows that is so for most of the world's, where the output goes into a file or a pipe.
"""

from __future__ import annotations

import io
import sys


def escape_what_cannot_be_printed() -> None:
    """From here on such a character is printed as ``\\u732b``, which would else be an error in the middle of a run."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
