"""Deformable convolution, native against the reference in float64: values and all gradients."""

from functools import partial
from itertools import combinations

import pytest
import torch
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.compare import assert_bitwise_equal, assert_gradients_present
from helpers.problems import assert_deform_run_close, deform_arguments, forward_arguments, gradcheck, run, smooth_leaves

from resnet_cuda.ops import deform_conv2d

pytestmark = pytest.mark.usefixtures("native")


@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_values_and_gradients(case, dtype, device):
    arguments = deform_arguments(case, dtype, device)
    assert_deform_run_close(run(deform_conv2d, arguments, **case.geometry), arguments, case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["plain", "v1", "groups_2_offset_groups_4", "channels_17_to_33", "tiles_grouped"])
def test_float32_offset_and_mask_beside_16_bit(name, dtype, device):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, dtype, device, position_dtype=torch.float32)
    assert_deform_run_close(run(deform_conv2d, arguments, **case.geometry), arguments, case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wide", ["offset", "mask"])
def test_only_one_of_offset_and_mask_in_float32(wide, dtype, device):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, dtype, device)
    arguments[wide] = arguments[wide].float()
    assert_deform_run_close(run(deform_conv2d, arguments, **case.geometry), arguments, case)


ALL = ("input", "offset", "weight", "bias", "mask")
SUBSETS = [subset for size in (1, 2, 4) for subset in combinations(ALL, size)] + [("input", "offset", "mask")]


@pytest.mark.parametrize("wanted", SUBSETS, ids="+".join)
def test_only_the_wanted_gradients(wanted, device):
    """Each alone, each pair, each four: exactly those are there and they are right."""
    case = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]
    arguments = deform_arguments(case, torch.float32, device)
    got = run(deform_conv2d, arguments, wanted, **case.geometry)
    assert_gradients_present(got.gradients, wanted)
    assert_deform_run_close(got, arguments, case, wanted=wanted)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("wanted", [(), *SUBSETS], ids=lambda wanted: "+".join(wanted) or "none")
def test_backward_operator_computes_only_what_is_needed(wanted, device):
    """Of shape (0,) where not asked for; bitwise the same as when all are asked for."""
    case = DEFORM_CASES_BY_NAME["offset_groups_2"]
    arguments = deform_arguments(case, torch.float32, device)
    tensors = [arguments[name] for name in ("grad", "input", "weight", "offset", "mask")]
    numbers = (*case.stride, *case.padding, *case.dilation)
    order = ("input", "weight", "offset", "mask", "bias")
    backward = torch.ops.resnet_cuda.deform_conv2d_backward
    all_of_them = backward(*tensors, *numbers, *(True for _ in order))
    got = backward(*tensors, *numbers, *(name in wanted for name in order))
    for name, gradient, full in zip(order, got, all_of_them, strict=True):
        if name not in wanted:
            assert gradient.shape == (0,), name
        else:
            assert_bitwise_equal(gradient, full, name)


def test_no_graph_where_nothing_needs_a_gradient(device):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = forward_arguments(case, torch.float32, device)
    assert not deform_conv2d(**arguments, **case.geometry).requires_grad
    arguments["offset"].requires_grad_()
    assert deform_conv2d(**arguments, **case.geometry).requires_grad
    with torch.no_grad():
        assert not deform_conv2d(**arguments, **case.geometry).requires_grad
    with torch.inference_mode():
        assert not deform_conv2d(**arguments, **case.geometry).requires_grad


@pytest.mark.parametrize(
    "name", ["plain", "v1_no_bias", "groups_2_offset_groups_4", "kernel_2x4", "stride_2x3", "one_pixel"]
)
def test_gradcheck(name, device, backend):
    case = DEFORM_CASES_BY_NAME[name]
    nondet_tol = 0 if backend == "native" else 1e-12  # the reference's sums on a GPU come in any order
    function = partial(deform_conv2d, **case.geometry)
    assert gradcheck(function, smooth_leaves(case, device), fast_mode=True, nondet_tol=nondet_tol)


def test_ints_and_lists_as_geometry(backend):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = forward_arguments(case, torch.float32)
    expected = deform_conv2d(**arguments, **case.geometry)
    assert_bitwise_equal(deform_conv2d(**arguments, stride=1, padding=1, dilation=1), expected, "ints")
    assert_bitwise_equal(deform_conv2d(**arguments, stride=[1, 1], padding=[1, 1], dilation=[1, 1]), expected, "lists")


def test_argument_order_and_defaults_are_torchvisions(backend):
    case = DEFORM_CASES_BY_NAME["per_axis_all"]
    a = forward_arguments(case, torch.float32)
    first, geometry = (a["input"], a["offset"], a["weight"]), (case.stride, case.padding, case.dilation)
    expected = deform_conv2d(**a, **case.geometry)
    assert_bitwise_equal(deform_conv2d(*first, a["bias"], *geometry, a["mask"]), expected, "by position")
    case = DEFORM_CASES_BY_NAME["no_padding"]
    a = forward_arguments(case, torch.float32)
    first = a["input"], a["offset"], a["weight"]
    assert_bitwise_equal(deform_conv2d(*first), deform_conv2d(*first, None, 1, 0, 1, None), "defaults")


def test_nothing_is_recorded_where_no_gradient_is_needed(monkeypatch):
    """Gradients are enabled, but no argument requires one."""
    from resnet_cuda.ops import deform_conv

    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = forward_arguments(case, torch.float32)
    applied, apply = [], deform_conv._DeformConv2d.apply
    monkeypatch.setattr(deform_conv._DeformConv2d, "apply", lambda *it: applied.append(it) or apply(*it))
    plain = deform_conv2d(**arguments, **case.geometry)
    assert not applied and not plain.requires_grad
    for name in ALL:
        one = arguments | {name: arguments[name].clone().requires_grad_()}
        recorded = deform_conv2d(**one, **case.geometry)
        assert recorded.requires_grad and len(applied) == 1
        assert_bitwise_equal(recorded.detach(), plain, name)
        applied.clear()
