"""A dtype of kSupportedDtypes without kernels does not compile, neither for a CPU nor for CUDA."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from emulation.build import CSRC, compile_flags
from helpers.cpp_library import compiler

SOURCES = {
    "cpu": '#include "common/cpu_dispatch.h"\n',
    "cuda": '#include "common/dispatch.h"\n'
    "void every(resnet_cuda::ScalarType dtype) { resnet_cuda::dispatch_dtype(dtype, [](auto) {}); }\n",
}
REASONS = {"cpu": "every_supported_dtype_has_a_storage", "cuda": "has no element type for the CUDA kernels"}
LAST = "    ScalarType::BFloat16};"


@pytest.mark.parametrize("device", SOURCES)
def test_a_dtype_without_kernels_does_not_compile(device, tmp_path):
    csrc = tmp_path / "csrc"
    shutil.copytree(CSRC, csrc)
    source = tmp_path / "source.cpp"
    source.write_text(SOURCES[device])
    command = [*compiler(), *compile_flags(False, csrc), "-fsyntax-only", str(source)]
    as_it_is = subprocess.run(command, capture_output=True, text=True)
    assert as_it_is.returncode == 0, as_it_is.stderr

    checks = csrc / "common/checks.h"
    text = checks.read_text()
    assert text.count(LAST) == 1, f"checks.h has changed: {LAST!r} must occur exactly once"
    checks.write_text(text.replace(LAST, "    ScalarType::BFloat16,\n    ScalarType::ComplexFloat};"))
    with_another = subprocess.run(command, capture_output=True, text=True)
    assert with_another.returncode != 0
    assert REASONS[device] in with_another.stderr
