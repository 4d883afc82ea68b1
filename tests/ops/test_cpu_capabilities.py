"""The CPU kernels that this machine would not choose by itself: AVX2 and portable, each in a process of its own."""

import pytest
from helpers.instruction_sets import LEVELS, run_at_level

from resnet_cuda import _extension

CODE = """
import torch
from helpers.cases import DEFORM_CASES, NORM_CASES
from helpers.norm_problems import assert_norm_run_close, norm_arguments, norm_run
from helpers.problems import assert_deform_run_close, deform_arguments, run
from resnet_cuda import _extension, ops, use_backend

use_backend("native")
torch.set_num_threads(1)
checked = 0
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for case in DEFORM_CASES:
        arguments = deform_arguments(case, dtype)
        got = run(ops.deform_conv2d, arguments, **case.geometry)
        assert_deform_run_close(got, arguments, case)
        checked += 1
    for case in NORM_CASES:
        for layout in (torch.contiguous_format, torch.channels_last):
            arguments = norm_arguments(case, dtype)
            arguments["input"] = arguments["input"].contiguous(memory_format=layout)
            assert_norm_run_close(norm_run(ops.frozen_bn_relu, arguments, relu=case.relu), arguments, case)
            checked += 1
print(_extension.cpu_capability(), checked)
"""


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("level", LEVELS[:-1])
def test_lower_instruction_sets(level):
    best = _extension.cpu_capability()
    if level == best:
        pytest.skip(f"this machine's own kernels are {best}, which all other tests run on")
    assert int(run_at_level(level, CODE)) > 200
