"""The CPU kernels of each instruction set, each in a process of its own; a machine chooses only one by itself."""

import pytest
from helpers.instruction_sets import LEVELS, run_at_level
from helpers.processes import run_python

from resnet_cuda import _extension

pytestmark = pytest.mark.usefixtures("registered")
START = """
import torch
from resnet_cuda import _extension, ops, use_backend

use_backend("native")
"""
# FrozenBN's cases: test_streaming.py, at every level.
DEFORM_CONV = """
from helpers.cases import DEFORM_CASES
from helpers.problems import assert_deform_run_close, deform_arguments, run
torch.set_num_threads(1)
checked = 0
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for case in DEFORM_CASES:
        arguments = deform_arguments(case, dtype)
        got = run(ops.deform_conv2d, arguments, **case.geometry)
        assert_deform_run_close(got, arguments, case)
        checked += 1
print(_extension.cpu_capability(), checked)
"""


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_deform_conv2d_on_lower_instruction_sets(level):
    best = _extension.cpu_capability()
    if level == best:
        pytest.skip(f"this machine's own kernels are {best}, which all other tests run on")
    assert int(run_at_level(level, START + DEFORM_CONV)) > 150


def test_an_unknown_instruction_set_is_an_error():
    result = run_python("-c", "import resnet_cuda", RESNET_CUDA_CPU_CAPABILITY="avx-2")
    assert result.returncode != 0
    assert "RESNET_CUDA_CPU_CAPABILITY is 'avx-2'; it must be one of portable, avx2, avx512" in result.stderr


ALL_16_BIT_NUMBERS = """
SHAPE = (1, 64, 32, 32)
bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
one, zero = torch.ones(64), torch.zeros(64)


def same(got, expected):
    # The instruction that rounds to bfloat16 gives 0 for what is below 2^-126.
    smallest = torch.finfo(torch.float32).tiny
    flushed = torch.where(expected.float().abs() < smallest, 0, expected.float())
    got = got.float()
    assert ((got == expected) | (got == flushed) | (got.isnan() & expected.isnan())).all()


for dtype in (torch.float16, torch.bfloat16):
    for layout in (torch.contiguous_format, torch.channels_last):
        def dense(numbers):
            return numbers.reshape(SHAPE).contiguous(memory_format=layout)

        every = dense(bits.view(dtype))
        same(ops.frozen_bn_relu(every, one, zero, relu=False), every)
        same(ops.frozen_bn_relu(every, one, zero), torch.where(every <= 0, 0, every))
        # As a ReLU's result each number decides about a gradient that is another one.
        grad = dense(bits.view(dtype).roll(12345))
        passed = torch.where(every <= 0, 0, grad)
        to_input, to_residual = torch.ops.resnet_cuda.frozen_bn_relu_backward(grad, 2 * one, every, True, True)
        same(to_residual, passed)
        same(to_input, (passed.float() * 2).to(dtype))
print(_extension.cpu_capability(), "right")
"""


@pytest.mark.parametrize("level", LEVELS)
def test_frozen_bn_of_all_16_bit_numbers(level):
    """Infinities, NaN of both signs and subnormals included."""
    assert run_at_level(level, START + ALL_16_BIT_NUMBERS) == "right"
