"""The benchmarks are part of the checkout, not of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import resnet_cuda
from resnet_cuda import _extension

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(resnet_cuda.__file__).resolve().parent
if (ROOT / "benchmarks").is_dir():
    sys.path.insert(0, str(ROOT))
else:
    collect_ignore_glob = ["test_*.py"]  # a wheel alone is being tested

SOURCES = ("benchmarks", "resnet_cuda", "build_native", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def checkout(tmp_path):
    """A copy of this checkout that was never built."""
    root = tmp_path / "checkout"
    root.mkdir()
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "results")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, root / name)
    return root


@pytest.fixture
def installed(tmp_path):
    """A Python of its own with torch and, as ``pip install`` leaves it, the package that is being tested.

    Gives the interpreter and the package's folder.
    """
    if not _extension.CPU_LOADED:
        pytest.skip("the compiled extension is not built")
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    # Files named *.pth there are not read: an editable install of the checkout does not come along.
    (site / "torch.pth").write_text(str(Path(torch.__file__).parents[1]))
    package = site / "resnet_cuda"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "bin" / "python", package


@pytest.fixture(scope="session")
def gpu_run():
    """``gpu_run(checkout, output, *options, python=, **environment)``: a dry run of the script, when it has ended."""

    def call(root, output, *options, python=sys.executable, seconds=110, **environment):
        # From the checkout itself, where its package would come first if the script let it.
        names = {"OUT": str(output), "PYTHON": str(python), "PYTHONPATH": "", **environment}
        command = ["bash", str(root / "benchmarks" / "gpu_run.sh"), "--device", "cpu", "--quick", *options]
        return subprocess.run(
            command, env={**os.environ, **names}, cwd=root, capture_output=True, text=True, timeout=seconds
        )

    return call
