"""The reference against torchvision's operator, whose signature and border rule it has."""

import pytest
import torch
from helpers.cases import DEFORM_CASES
from helpers.problems import assert_deform_run_close, deform_arguments, run

deform_conv2d = pytest.importorskip("torchvision.ops", reason="torchvision is not installed").deform_conv2d


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_torchvision_agrees_with_the_reference(case, dtype):
    arguments = deform_arguments(case, dtype)
    theirs = run(deform_conv2d, arguments, **case.geometry)
    # torchvision gives a gradient for a bias and a mask only where there is one, as the reference does.
    assert_deform_run_close(theirs, arguments, case)


def test_torchvision_agrees_at_exactly_minus_one_and_at_the_far_border():
    """Zero offsets and padding: each border tap lies at exactly -1, H or W."""
    arguments = deform_arguments(DEFORM_CASES[0], torch.float64)
    arguments["offset"].zero_()
    theirs = run(deform_conv2d, arguments, **DEFORM_CASES[0].geometry)
    assert_deform_run_close(theirs, arguments, DEFORM_CASES[0])
