"""The compiled libraries' symbols: what they need of torch, and where AVX code may lie."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from helpers.processes import PACKAGE

from resnet_cuda import _extension

pytestmark = pytest.mark.skipif(
    not (shutil.which("readelf") and shutil.which("nm")), reason="binutils are not installed"
)


def libraries():
    return sorted(PACKAGE.glob("*.so"))


def output_of(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def test_the_libraries_need_no_particular_torch_or_cuda():
    """Only the stable ABI's C functions: no C++ symbol of ATen, c10 or torch, no CUDA runtime, no torch_python."""
    assert libraries() or not _extension.CPU_LOADED
    for library in libraries():
        needed = re.findall(r"NEEDED.*\[(.*)\]", output_of("readelf", "-d", library))
        assert not [name for name in needed if re.search("cudart|torch_python|torch_cuda|c10", name)], library
        undefined = [line.split()[-1] for line in output_of("nm", "-D", "--undefined-only", library).splitlines()]
        cpp = [name for name in undefined if re.match(r"_ZN?K?(2at|3c10|5torch|NK?2at|NK?3c10|NK?5torch)", name)]
        assert not cpp, (library, cpp)
        assert any(name.startswith("aoti_torch_") for name in undefined), library


def test_only_the_module_needs_python():
    """C++ programs load the others."""
    for library in libraries():
        undefined = [line.split()[-1] for line in output_of("nm", "-D", "--undefined-only", library).splitlines()]
        of_python = [name for name in undefined if re.match("_?Py", name)]
        assert bool(of_python) == library.name.startswith("_C"), library


def test_instruction_sets_do_not_leak():
    """AVX code only in functions of that instruction set's own namespace: other machines must not run it."""
    if not _extension.CPU_LOADED:
        pytest.skip("not built")
    names = output_of("nm", "-C", "--defined-only", _extension.library())  # others may lie there, of other Pythons
    assert not re.findall(r" W .*(?:avx2|avx512)", names)  # a weak function is one that the linker may merge
