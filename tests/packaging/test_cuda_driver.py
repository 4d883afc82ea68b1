"""A driver that is too old for the library's CUDA runtime is named, and no kernel is called."""

from __future__ import annotations

import subprocess

import pytest
import torch
from helpers.processes import run_python

from resnet_cuda import _cuda_driver, _extension
from resnet_cuda._cuda_driver import driver_version, is_too_old


@pytest.mark.parametrize(
    ("driver", "toolkit", "expected"),
    [
        ((12, 6), "13.0", True),
        ((12, 6), "12.9", False),  # minor version compatibility
        ((13, 0), "13.5", False),
        ((13, 2), "12.4", False),
        ((12, 6), "none", False),
    ],
)
def test_the_major_versions_count(driver, toolkit, expected):
    assert is_too_old(driver, toolkit) == expected


SOURCES = {
    (12, 6): "int cuDriverGetVersion(int* version) { *version = 12060; return 0; }",
    None: "int cuDriverGetVersion(int* version) { *version = 12060; return 3; }",
}


@pytest.mark.parametrize("expected", SOURCES)
def test_the_driver_is_asked(expected, tmp_path, monkeypatch):
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text(SOURCES[expected])
    if subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)]).returncode != 0:
        pytest.skip("no C compiler")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    code = "from resnet_cuda._cuda_driver import driver_version; print(driver_version())"
    result = run_python("-c", code)
    assert result.stdout.strip().splitlines()[-1] == str(expected), result.stderr


def test_no_driver_is_no_fault(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(_cuda_driver.ctypes, "CDLL", missing)
    assert driver_version() is None


@pytest.mark.skipif(not _extension.CPU_LOADED, reason="the extension is not built")
@pytest.mark.parametrize(("driver", "loaded"), [((12, 6), False), ((13, 0), True), (None, True)])
def test_the_cuda_library_is_not_loaded_for_a_driver_that_is_too_old(driver, loaded, tmp_path, monkeypatch):
    library = tmp_path / "_cuda_kernels.so"
    library.touch()
    calls = []
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.ops, "load_library", calls.append)
    monkeypatch.setattr(_extension, "_has_cuda_kernels", lambda: False)
    monkeypatch.setattr(_extension, "CUDA_LIBRARY", library)
    monkeypatch.setattr(_extension, "CUDA_LOADED", False)
    monkeypatch.setattr(_extension, "CUDA_ERROR", None)
    monkeypatch.setattr(_extension, "_is_of_this_build", lambda file: True)
    monkeypatch.setattr(_extension, "build_info", lambda: {"cuda": "13.0"})
    monkeypatch.setattr(_cuda_driver, "driver_version", lambda: driver)
    _extension._load_cuda()
    assert loaded == _extension.CUDA_LOADED == bool(calls)
    if not loaded:
        assert "was built with CUDA 13.0, the driver supports CUDA 12.6 at most" in _extension.CUDA_ERROR
        assert "with a CUDA 12 toolkit at hand" in _extension.CUDA_ERROR
