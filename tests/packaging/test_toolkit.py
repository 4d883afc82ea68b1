"""Finding the CUDA toolkit by asking nvcc."""

from __future__ import annotations

import sys

import pytest

from build_native.toolkit import find_toolkit


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_a_toolkit_is_found_by_variable(fake_toolkit, monkeypatch, variable):
    nvcc = fake_toolkit()
    monkeypatch.setenv(variable, str(nvcc.parents[1]))
    toolkit, tried = find_toolkit(("g++",))
    assert (toolkit.root, toolkit.version, tried) == (nvcc.parents[1], "12.6", [])
    assert toolkit.include == nvcc.parents[1] / "include"
    assert toolkit.runtime == nvcc.parents[1] / "lib64" / "libcudart_static.a"


def test_a_wrapper_script_far_from_the_toolkit(fake_toolkit, monkeypatch, tmp_path):
    nvcc = fake_toolkit()
    wrapper = tmp_path / "elsewhere" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    toolkit, _ = find_toolkit(("g++",))
    assert toolkit.nvcc == wrapper
    assert toolkit.root == nvcc.parents[1]


def test_a_toolkit_from_python_packages(fake_toolkit, monkeypatch, tmp_path):
    nvcc = fake_toolkit("site/nvidia/cu12")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_toolkit(("g++",))[0].nvcc == nvcc


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"header": False}, "cuda_runtime.h is not in include"),
        ({"runtime": False}, "libcudart_static.a is not in lib64"),
        ({"works": False}, "no licence"),
    ],
)
def test_what_is_missing_is_said(fake_toolkit, monkeypatch, lack, message):
    broken, whole = fake_toolkit("broken", **lack), fake_toolkit("whole")
    monkeypatch.setenv("CUDA_HOME", str(broken.parents[1]))
    monkeypatch.setenv("CUDA_PATH", str(whole.parents[1]))
    toolkit, (tried,) = find_toolkit(("g++",))
    assert toolkit.root == whole.parents[1]  # the next place is asked
    assert "CUDA_HOME" in tried
    assert message in tried


def test_no_toolkit_at_all_is_said(fake_toolkit, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    toolkit, (tried,) = find_toolkit(("g++",))
    assert toolkit is None
    assert "no such file" in tried
