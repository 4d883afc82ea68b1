"""Copies of the package without its libraries, and a program that runs in one."""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers.processes import PACKAGE

# Prints the one warning of a package whose compiled part is not loaded, after both operators have run.
PROBE = """
import os, sys, warnings
# An editable install's finder, or its path, would find a checkout's library for the copy's missing one.
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
sys.path = [f for f in sys.path if os.path.realpath(f) == os.getcwd() or not os.path.isdir(f + "/resnet_cuda")]
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch, resnet_cuda
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    y = resnet_cuda.ops.deform_conv2d(x, torch.zeros(1, 18, 4, 4), torch.randn(3, 2, 3, 3), padding=1)
    resnet_cuda.layers.FrozenBatchNorm2d(3)(y, relu=True, inplace=True).sum().backward()
ours = [str(w.message) for w in seen if "resnet_cuda" in str(w.message)]
assert len(ours) == 1, ours
assert "circular" not in ours[0] and "RESNET_CUDA_BUILD" in ours[0], ours
assert resnet_cuda.backend() == "reference"
assert x.grad.any()
try:
    resnet_cuda.use_backend("native")
except RuntimeError as error:
    assert str(error).startswith("use_backend: 'native' was asked for"), error
    assert "not loaded" in str(error) and "circular" not in str(error)
else:
    raise AssertionError("use_backend('native') must fail")
assert resnet_cuda.backend() == "reference"
print("WARNING", ours[0])
"""


def copy_of_the_package(folder: Path) -> Path:
    """Without its libraries."""
    shutil.copytree(PACKAGE, folder / "resnet_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return folder / "resnet_cuda"
