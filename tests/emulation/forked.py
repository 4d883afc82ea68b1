"""Starts Python and torch once and runs pytest in copies of itself: ``python -m emulation.forked``.

Each line of stdin is a request in JSON: the ``arguments`` of pytest, ``environment`` variables, and the file that gets
what the copy writes, ``output``. The answer is the copy's exit status, in a line. It must run with OMP_NUM_THREADS=1,
and do nothing by itself that starts threads, as a fork takes none along.
"""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch  # noqa: F401

import resnet_cuda  # noqa: F401


def run(arguments: list[str], environment: dict[str, str], output: str) -> int:
    """pytest's exit status in a forked process, or minus the number of the signal that ended it."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.environ.update(environment)
        status = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        print(run(**json.loads(line)), flush=True)
