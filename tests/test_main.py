"""``python -m resnet_cuda``: information, version, help and mistakes."""

from __future__ import annotations

import json
import os
import sys

import pytest
from helpers.processes import PACKAGE, run_python

import resnet_cuda
from resnet_cuda import _extension


def program(*arguments):
    return run_python("-m", "resnet_cuda", *arguments)


def test_info_says_what_is_built_and_in_use():
    result, as_json = program("info"), program("info", "--json")
    assert result.returncode == as_json.returncode == 0, result.stderr + as_json.stderr
    lines = dict(line.strip().split(": ", 1) for line in result.stdout.splitlines())
    facts = json.loads(as_json.stdout)
    backend = "native" if _extension.CPU_LOADED else "reference"
    for found in (lines, facts):
        assert found["resnet_cuda"] == resnet_cuda.__version__
        assert found["backend"] == backend
    assert lines["built with torch"] == _extension.build_info().get("torch", "not built")
    for name in ("torch", "built with CUDA", "GPU architectures", "CPU operators", "CUDA operators", "GPUs"):
        assert lines[name]
    assert facts["folder"] == str(PACKAGE)
    assert facts["CUDA_operators"] == ("native" if _extension.CUDA_LOADED else f"reference ({_extension.CUDA_ERROR})")
    assert not [name for name in facts if " " in name]


def test_version_is_printed():
    result = program("--version")
    assert (result.returncode, result.stdout) == (0, f"resnet_cuda {resnet_cuda.__version__}\n")


def test_without_a_command_the_help_is_printed():
    result = program()
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: python -m resnet_cuda" in result.stderr
    assert "weights in another library's names" in result.stderr
    unknown = program("--dance")
    assert unknown.returncode == 2
    assert "unrecognized arguments: --dance" in unknown.stderr


def test_an_unknown_command_is_refused():
    result = program("dance")
    assert result.returncode == 2
    assert "'info', 'bench'" in result.stderr or "info, bench" in result.stderr


@pytest.mark.parametrize(
    ("called", "name"),
    [("/usr/bin/resnet-cuda", "resnet-cuda"), ("/x/resnet_cuda/__main__.py", "python -m resnet_cuda")],
)
def test_the_program_is_named_as_it_was_called(called, name, capsys, monkeypatch):
    from resnet_cuda.__main__ import main

    monkeypatch.setattr(sys, "argv", [called])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"usage: {name} " in capsys.readouterr().out


def test_another_package_named_benchmarks_is_not_ours(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name in ("__init__.py", "__main__.py"):
        (tmp_path / "benchmarks" / name).write_text("print('not ours')\n")
    path = f"{tmp_path}{os.pathsep}{PACKAGE.parent}"
    result = run_python("-m", "resnet_cuda", "bench", path=path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "benchmarks/ is part of a checkout" in result.stderr
