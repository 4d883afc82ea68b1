"""Constants that the launches depend on: values that they do not allow are refused by the compiler, with a reason.

Without that, 16 threads per row make a kernel loop forever, and 12 warps leave a quarter of every transposed tile
unwritten.
"""

from __future__ import annotations

import shutil

import pytest
from emulation.build import CSRC
from emulation.libraries import build_library

TAP_BLOCK, TRANSPOSE = "deform_conv/cuda_tap_block.cuh", "common/transpose.cuh"
REFUSED = {
    "16 threads per row": (TAP_BLOCK, "kMostRowThreads = 8;", "kMostRowThreads = 16;", "raise kBlockThreads"),
    "6 threads per row": (TAP_BLOCK, "kMostRowThreads = 8;", "kMostRowThreads = 6;", "a power of two, at most 32"),
    "64 pixels per block": (
        TAP_BLOCK,
        "kBlockPixels = device::kWarp;",
        "kBlockPixels = 2 * device::kWarp;",
        "a block has kMostRowThreads threads, or a multiple, per pixel",
    ),
    "12 warps": (TRANSPOSE, "kThreads = 256;", "kThreads = 384;", "share the 32 rows of words of a tile evenly"),
    "2048 threads": (TRANSPOSE, "kThreads = 256;", "kThreads = 2048;", "at most 1024 threads"),
    "100 threads": ("frozen_bn/cuda_grid.h", "kThreads = 256;", "kThreads = 100;", "a block has whole warps"),
    "121 taps": (
        TAP_BLOCK,
        "kMostTapsPerBlock = 9;",
        "kMostTapsPerBlock = 121;",
        "at most 48 KiB of shared memory",
    ),
    "4 GB of workspace": (
        "deform_conv/cuda_workspace.h",
        "kWorkspaceBytes = RESNET_CUDA_WORKSPACE_BYTES;",
        "kWorkspaceBytes = int64_t{4} << 30;",
        "in 32 bits",
    ),
    "packs of 32 bytes": ("common/pack.cuh", "kPackBytes = 16;", "kPackBytes = 32;", "the widest load and store"),
}


@pytest.mark.parametrize("file, old, new, reason", REFUSED.values(), ids=REFUSED)
def test_a_constant_that_does_not_fit_is_refused(tmp_path, file, old, new, reason):
    csrc = tmp_path / "csrc"
    shutil.copytree(CSRC, csrc)
    text = (csrc / file).read_text()
    assert text.count(old) == 1, f"{file} has changed: {old!r} must occur exactly once"
    (csrc / file).write_text(text.replace(old, new))
    library = "transpose" if file == TRANSPOSE else f"operators/{'frozen_bn' if 'frozen' in file else 'deform_conv'}"
    with pytest.raises(RuntimeError, match=f"static assertion failed.*: .*{reason}"):
        build_library(library, tmp_path, csrc=csrc, flags=["-fsyntax-only", "-DRESNET_CUDA_FLOAT32_ONLY"])
