"""The fibers of processors other than x86-64 (fiber.h), on this one."""

from __future__ import annotations

import re

import pytest
from emulation.build import HERE
from emulation.child import run_tests, sanitizer_runtimes
from emulation.libraries import build_library


@pytest.mark.parametrize("sanitize", [False, True], ids=["plain", "sanitized"])
def test_the_emulation_finds_the_same(tmp_path, sanitize):
    if sanitize and sanitizer_runtimes() is None:
        pytest.skip("this compiler comes without AddressSanitizer")
    build_library("self_test", tmp_path, sanitize=sanitize, flags=["-DRESNET_CUDA_FIBERS_BY_UCONTEXT"])
    child = run_tests([str(HERE / "test_device_emulation.py")], tmp_path, sanitize=sanitize)
    assert child.returncode == 0, child.stdout
    assert re.search(r"^\d+ passed in ", child.stdout, re.MULTILINE), child.stdout
