"""What a program prints on standard output: characters that it lacks, and an output that takes no more.

Names of files, classes and parameters may have characters that the output's encoding lacks. On Windows that is so for
most of the world's, where the output goes into a file or a pipe.
"""

from __future__ import annotations

import io
import os
import sys


def escape_what_cannot_be_printed() -> None:
    """From here on such a character is printed as ``\\u732b``, which would else be an error in the middle of a run."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def show(text: object, done: str = "") -> int:
    """Prints ``text`` at once. Returns the exit status: 1 where the output takes no more.

    Nothing is said of that where the output is a pipe whose reader has left, as of ``| head -1``, else one sentence.

    Args:
        done: what the sentence begins with: what was done before.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        return _not_printed(error, done)
    return 0


def delivered(status: int | str | None) -> int | str | None:
    """For the very end of a process: writes what is left to print. Returns ``status``, or 1 where that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What is left stays in the buffer, and Python itself would try again and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or _not_printed(error)
    return status


def _not_printed(error: OSError, done: str = "") -> int:
    if not isinstance(error, BrokenPipeError):
        reason = error.strerror or error
        print(f"resnet_cuda: {done}standard output cannot be written to: {reason}", file=sys.stderr)
    return 1
