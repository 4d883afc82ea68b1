"""An empty batch: forward and backward give tensors of the right shape; the gradients of the parameters are zero."""

from dataclasses import replace

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.layouts import in_format
from helpers.problems import assert_deform_run_close, deform_arguments, forward_arguments, run

from resnet_cuda import ops

NAMES = ("plain", "v1_no_bias", "depthwise", "groups_2_offset_groups_4", "stride_2x3", "one_pixel")


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch_gives_empty_results_and_zero_gradients(name, memory_format, dtype, device, backend):
    case = replace(DEFORM_CASES_BY_NAME[name], batch=0)
    arguments = in_format(deform_arguments(case, dtype, device), memory_format)
    got = run(ops.deform_conv2d, arguments, **case.geometry)
    assert got.output.shape == (0, case.out_channels, *case.out_size)
    assert got.output.device.type == device.type
    assert_deform_run_close(got, arguments, case, trivial=("output", *arguments))


def test_empty_batch_still_checks_its_arguments(backend):
    case = replace(DEFORM_CASES_BY_NAME["plain"], batch=0)
    arguments = forward_arguments(case, torch.float32)
    arguments["mask"] = arguments["mask"][..., :-1]
    with pytest.raises((RuntimeError, ValueError), match=r"^deform_conv2d: .*\bmask\b"):
        ops.deform_conv2d(**arguments, **case.geometry)
