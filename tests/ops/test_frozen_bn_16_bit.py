"""All 65,536 values of each 16-bit type through each instruction set's FrozenBN: infinities, NaN, subnormals."""

import pytest
from helpers.instruction_sets import LEVELS, run_at_level

CODE = """
import torch
from resnet_cuda import _extension, ops, use_backend

use_backend("native")
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


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("level", LEVELS)
def test_every_number(level):
    assert run_at_level(level, CODE) == "right"
