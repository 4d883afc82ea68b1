"""Streaming (non-temporal) stores: the same bits as ordinary stores, and chosen only where that is faster."""

import mmap
import os
import sys

import pytest
import torch
from helpers.instruction_sets import LEVELS, run_at_level
from helpers.processes import run_python

pytestmark = pytest.mark.usefixtures("registered")
MB = 2**20
# Two threads, so that one of them begins in the middle of a cache line.
CODE = """
import hashlib
import torch
from helpers.cases import NORM_CASES, NormCase
from helpers.norm_problems import assert_norm_run_close, norm_arguments, norm_run
from resnet_cuda import _extension, ops, use_backend

use_backend("native")
torch.set_num_threads(2)
digest = hashlib.sha256()
large = NormCase("large", (1, 37, 41, 43), residual=True), NormCase("large_affine", (1, 64, 39, 41), relu=False)
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for case in NORM_CASES + large:
        for layout in (torch.contiguous_format, torch.channels_last):
            arguments = norm_arguments(case, dtype)
            arguments["input"] = arguments["input"].contiguous(memory_format=layout)
            got = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
            assert_norm_run_close(got, arguments, case)
            for result in (got.output, *got.gradients.values()):
                if result is not None:
                    digest.update(result.contiguous().view(torch.uint8).numpy().tobytes())
print(_extension.cpu_capability(), digest.hexdigest())
"""


@pytest.mark.parametrize("level", LEVELS)
def test_streaming_stores_change_no_bit(level):
    always, never = (run_at_level(level, CODE, RESNET_CUDA_STREAMING=wish) for wish in ("always", "never"))
    assert always == never


def test_another_value_is_an_error():
    code = "from resnet_cuda import _C; _C.worth_streaming(1, 0, 1, 1)"
    result = run_python("-c", code, RESNET_CUDA_STREAMING="sometimes")
    assert result.returncode != 0
    assert "RESNET_CUDA_STREAMING is 'sometimes'; it must be always or never" in result.stderr


@pytest.fixture
def streams():
    """What the kernels ask: (bytes that the pass moves, address of a result, its bytes, threads) -> bool."""
    from resnet_cuda import _C

    if os.environ.get("RESNET_CUDA_STREAMING"):
        pytest.skip("RESNET_CUDA_STREAMING decides")
    return _C.worth_streaming


def test_chosen_only_where_more_moves_than_caches_hold(streams):
    result = torch.zeros(4 * MB, dtype=torch.uint8)
    linux = sys.platform.startswith("linux")
    for moved, threads, expected in ((16, 1, linux), (28, 4, linux), (28, 5, False), (6, 1, False), (1000, 64, linux)):
        assert streams(moved * MB, result.data_ptr(), result.nbytes, threads) == expected, (moved, threads)


def test_chosen_only_for_results_aligned_to_a_cache_line(streams):
    result = torch.zeros(4 * MB, dtype=torch.uint8)
    assert not streams(1000 * MB, result.data_ptr() + 32, result.nbytes - 32, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mincore")
@pytest.mark.parametrize("touched", ["nothing", "first", "all but the last", "all"])
def test_chosen_only_for_memory_whose_pages_are_mapped(streams, touched):
    pages = 64
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        view = torch.frombuffer(memory, dtype=torch.uint8)
        for page in {"nothing": (), "first": (0,), "all but the last": range(pages - 1), "all": range(pages)}[touched]:
            view[page * mmap.PAGESIZE] = 1
        assert streams(1000 * MB, view.data_ptr(), view.nbytes, 1) == (touched == "all")
        del view
