"""Tensors on a GPU that is not the current one."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME, NORM_CASES
from helpers.gpu import NEEDS_GPU
from helpers.norm_problems import assert_norm_run_close, norm_arguments, norm_run
from helpers.problems import assert_deform_run_close, deform_arguments, run

from resnet_cuda import ops

pytestmark = [*NEEDS_GPU, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA GPU")]


def test_deform_conv2d():
    case = DEFORM_CASES_BY_NAME["tiles_grouped"]
    arguments = deform_arguments(case, torch.float32, "cuda:1")
    assert torch.cuda.current_device() == 0
    got = run(ops.deform_conv2d, arguments, **case.geometry)
    assert got.output.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert_deform_run_close(got, arguments, case)


def test_frozen_bn_relu():
    case = next(case for case in NORM_CASES if case.residual)
    arguments = norm_arguments(case, torch.float32, "cuda:1")
    got = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
    assert got.output.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert_norm_run_close(got, arguments, case)
