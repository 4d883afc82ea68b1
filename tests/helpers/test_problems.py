"""The arguments are what they claim to be, and the mirrored reference is the same function in another order."""

import pytest
import torch
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.problems import assert_deform_run_close, deform_arguments, mirrored_deform_conv2d, random_offsets, run

from resnet_cuda import reference


@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_mirrored_reference_is_the_reference(case):
    arguments = deform_arguments(case, torch.float64)
    straight = run(reference.deform_conv2d, arguments, **case.geometry)
    mirrored = run(mirrored_deform_conv2d, arguments, **case.geometry)
    torch.testing.assert_close(mirrored.output, straight.output)
    for name, gradient in straight.gradients.items():
        if gradient is not None:
            torch.testing.assert_close(mirrored.gradients[name], gradient)


def test_mirrored_reference_rounds_differently():
    case = DEFORM_CASES_BY_NAME["tiles"]
    arguments = deform_arguments(case, torch.float32)
    straight = run(reference.deform_conv2d, arguments, (), **case.geometry)
    mirrored = run(mirrored_deform_conv2d, arguments, (), **case.geometry)
    assert not torch.equal(straight.output, mirrored.output)


def test_offsets_survive_the_dtype_and_hold_whole_and_broken_numbers(dtype):
    grid = dtype in (torch.float16, torch.bfloat16)
    exact = random_offsets((4000,), 4, torch.Generator().manual_seed(0), grid=grid)
    given = exact.to(dtype).double()
    whole = given == given.round()
    assert 0.05 < whole.double().mean() < 0.2
    assert ((given - given.round()).abs()[~whole] > 0.04).all()
    assert given.min() == -4
    assert given.max() > 3.9
    if grid:
        assert torch.equal(given, exact)


@pytest.mark.parametrize("broken", ["output", "input", "offset", "weight", "bias", "mask"])
@pytest.mark.parametrize("how", ["zero", "missing", "scaled"])
def test_comparison_of_a_run_sees_each_part(broken, how):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, torch.float32)
    right = run(reference.deform_conv2d, arguments, **case.geometry)
    assert_deform_run_close(right, arguments, case)

    def damage(value):
        return {"zero": torch.zeros_like(value), "missing": None, "scaled": value * 1.0001}[how]

    if broken == "output":
        wrong = right._replace(output=damage(right.output))
    else:
        wrong = right._replace(gradients=right.gradients | {broken: damage(right.gradients[broken])})
    with pytest.raises(AssertionError, match=f"{broken}"):
        assert_deform_run_close(wrong, arguments, case)


def test_run_differentiates_for_what_is_wanted_only():
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, torch.float32)
    result = run(reference.deform_conv2d, arguments, ["offset"], **case.geometry)
    assert [name for name, gradient in result.gradients.items() if gradient is not None] == ["offset"]
