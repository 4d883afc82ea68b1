"""A missing or broken extension: everything runs on the reference, and a message says why and what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.processes import PACKAGE, run_python
from helpers.without_libraries import PROBE, copy_of_the_package

from resnet_cuda import _extension

ROOT = Path(__file__).resolve().parents[2]


def installed(package):
    return f"{package} was installed without its compiled part", "Reinstall"


def a_checkout(package):
    root = package.parent
    (root / "setup.py").touch()
    return (
        f"the checkout at {root} has no compiled part (never compiled, or installed with RESNET_CUDA_BUILD=none)",
        f"pip install -e {root},",
    )


def for_another_python(package):
    (package / "_C.cpython-36m-x86_64-linux-gnu.so").touch()
    return ("is for another Python (_C.cpython-36m-x86_64-linux-gnu.so)",)


def broken(package):
    (package / "_C.abi3.so").write_bytes(b"\x7fELF and then nothing")
    return ("cannot be loaded",)


@pytest.mark.parametrize("prepare", [installed, a_checkout, for_another_python, broken])
def test_without_the_extension_everything_runs_on_the_reference(prepare, tmp_path):
    """With one warning, which says what is there and what to do."""
    texts = prepare(copy_of_the_package(tmp_path))
    result = run_python("-c", PROBE, path=tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for text in texts:
        assert text in result.stdout


INFO = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
from resnet_cuda.__main__ import main
sys.exit(main({arguments}))
"""


@pytest.mark.skipif(not _extension.CPU_LOADED, reason="the extension is not built")
def test_a_checkout_in_front_of_an_installed_package(tmp_path):
    """As after `pip install .` in the clone: Python finds the clone first, which has no libraries."""
    checkout, installed = tmp_path / "checkout", tmp_path / "site-packages"
    copy_of_the_package(checkout)
    (checkout / "setup.py").touch()
    shutil.copytree(PACKAGE, installed / "resnet_cuda", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "benchmarks", checkout / "benchmarks", ignore=shutil.ignore_patterns("results"))

    def program(*arguments, path=f"{checkout}{os.pathsep}{installed}", cwd=checkout):
        return run_python("-c", INFO.format(arguments=[*arguments]), path=path, cwd=cwd)

    sentence = (
        f"{checkout / 'resnet_cuda'}, which has no compiled part, shadows the installed {installed / 'resnet_cuda'}, "
        "which has one"
    )
    shadowed = program("info")
    assert shadowed.returncode == 0, shadowed.stderr
    assert f"reference ({sentence})" in shadowed.stdout
    assert sentence in shadowed.stderr
    assert f"pip install -e {checkout}" in shadowed.stderr

    for arguments in (["bench", "--quick", "frozen_bn"], ["bench", "--device", "cuda"]):
        refused = program(*arguments)
        assert refused.returncode == 2, refused.stdout
        assert sentence in refused.stderr
        assert "--allow-reference or RESNET_CUDA_BACKEND=reference" in refused.stderr
        assert not refused.stdout

    elsewhere = program("info", path=installed, cwd=tmp_path)
    assert "backend: native" in elsewhere.stdout


@pytest.mark.parametrize(
    ("hip", "cuda", "said"),
    [("6.4.43482", None, "is a ROCm build; there are no kernels for AMD's GPUs"), (None, None, "is a CPU-only build")],
)
def test_a_torch_without_cuda_is_named(hip, cuda, said, monkeypatch):
    """In ROCm builds, too, torch.version.cuda is None."""
    monkeypatch.setattr(_extension, "CPU_LOADED", True)
    for name in ("CUDA_LOADED", "CUDA_ERROR"):
        monkeypatch.setattr(_extension, name, getattr(_extension, name))  # as it is afterwards
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    _extension._load_cuda()
    assert f"torch {torch.__version__} {said}" == _extension.CUDA_ERROR


def test_the_reference_is_measured_where_it_is_asked_for(monkeypatch):
    benchmarks = pytest.importorskip("benchmarks.__main__")
    monkeypatch.setattr(_extension, "CPU_LOADED", False)
    monkeypatch.delenv("RESNET_CUDA_BACKEND", raising=False)
    assert "measure the slow PyTorch reference" in benchmarks.why_refused(benchmarks.parse(["--device", "cpu"]))
    assert benchmarks.why_refused(benchmarks.parse(["--device", "cpu", "--allow-reference"])) is None
    monkeypatch.setenv("RESNET_CUDA_BACKEND", "reference")
    assert benchmarks.why_refused(benchmarks.parse(["--device", "cpu"])) is None
