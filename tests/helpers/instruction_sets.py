"""Code that runs in a process of its own on the CPU kernels of one instruction set."""

from __future__ import annotations

import pytest
from helpers.processes import run_python

import resnet_cuda

LEVELS = ("portable", "avx2", "avx512", "avx512_bf16")


def run_at_level(level: str, code: str, **environment: str) -> str:
    """Runs ``code``, which prints the level that it found and one word more; returns that word.

    Skips the test where the machine has no such instructions.
    """
    usable = resnet_cuda._C.cpu_capabilities()
    if level not in usable:
        pytest.skip(f"this machine has only {', '.join(usable)}")
    result = run_python("-c", code, RESNET_CUDA_CPU_CAPABILITY=level, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    name, word = result.stdout.split()
    assert name == level
    return word
