"""Two runs are equal to the last bit, and PyTorch's deterministic mode has nothing to refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.gpu import NEEDS_GPU, STAGES, assert_runs_equal, collapsed, deform_run, layer_arguments

import resnet_cuda

pytestmark = NEEDS_GPU
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_two_runs_are_equal(stage, dtype):
    """Output and all gradients; the second run while other work disturbs the order of the blocks."""
    arguments = layer_arguments(STAGES[stage], 2, dtype, "cuda")
    first = deform_run(arguments)
    noise, product = torch.cuda.Stream(), torch.randn(2048, 2048, device="cuda")
    noise.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(noise):
        for _ in range(50):
            product = torch.mm(product, product).tanh()
    second = deform_run(arguments)
    torch.cuda.synchronize()
    assert_runs_equal(second, first)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_are_equal_where_all_offsets_meet(dtype):
    """4200 pixels x 9 taps of gradient for four pixels."""
    arguments = collapsed(layer_arguments((64, 50, 84), 2, dtype, "cuda"))
    first = deform_run(arguments)
    for _ in range(3):
        assert_runs_equal(deform_run(arguments), first)


IN_DETERMINISTIC_MODE = """
import torch
torch.use_deterministic_algorithms(True)
from helpers.gpu import assert_runs_equal, block_run, layer_arguments
for dtype in (torch.float32, torch.bfloat16):
    arguments = layer_arguments((64, 33, 29), 2, dtype, "cuda")
    residual = torch.randn_like(arguments["input"])
    first = block_run(arguments, residual)
    assert_runs_equal(block_run(arguments, residual), first)
print("deterministic")
"""


def test_deterministic_mode_raises_nothing():
    """In a process of its own: cuBLAS reads its variable once."""
    tests, package = Path(__file__).parents[1], Path(resnet_cuda.__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(package), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": paths}
    command = [sys.executable, "-c", IN_DETERMINISTIC_MODE]
    result = subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "deterministic"
