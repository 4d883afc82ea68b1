"""Any strides in: the result is that of contiguous tensors, and channels_last in gives channels_last out."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.layouts import (
    batch_last,
    channels_last,
    channels_last_window,
    every_second,
    expanded,
    misaligned,
    transposed,
    window,
)
from helpers.problems import assert_deform_run_close, deform_arguments, run

from resnet_cuda import ops

LAYOUTS = (channels_last, transposed, batch_last, every_second, window, channels_last_window, misaligned)


def in_layout(layout, arguments):
    return {key: None if value is None else layout(value) for key, value in arguments.items()}


def check(arguments, case, memory_format=None):
    """:func:`run` detaches its arguments, which keeps strides."""
    got = run(ops.deform_conv2d, arguments, **case.geometry)
    assert_deform_run_close(got, arguments, case, memory_format=memory_format)
    return got


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("name", ["plain", "channels_17_to_33", "groups_2_offset_groups_4"])
def test_all_tensors_in_a_layout(name, layout, device, native):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = in_layout(layout, deform_arguments(case, torch.float32, device))
    assert any(not value.is_contiguous() or value.storage_offset() for value in arguments.values() if value is not None)
    check(arguments, case)


@pytest.mark.parametrize("layout", [channels_last, every_second, misaligned], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("which", ["input", "offset", "weight", "bias", "mask", "grad"])
def test_one_tensor_in_a_layout(which, layout, device, native):
    case = DEFORM_CASES_BY_NAME["offset_groups_2"]
    arguments = deform_arguments(case, torch.float32, device)
    arguments[which] = layout(arguments[which])
    check(arguments, case)


@pytest.mark.parametrize("layout", [channels_last, misaligned, window], ids=lambda layout: layout.__name__)
def test_layouts_in_each_dtype(layout, dtype, device, native):
    case = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]
    check(in_layout(layout, deform_arguments(case, dtype, device)), case)


@pytest.mark.parametrize("name", ["plain", "v1_no_bias", "depthwise", "tiles_grouped", "stride_2x3"])
def test_channels_last_in_channels_last_out(name, dtype, device, backend):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, dtype, device)
    assert run(ops.deform_conv2d, arguments, (), **case.geometry).output.is_contiguous()
    arguments["input"] = channels_last(arguments["input"])
    output = run(ops.deform_conv2d, arguments, (), **case.geometry).output
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert not output.is_contiguous()


@pytest.mark.parametrize("which", ["input", "offset", "mask"])
def test_one_image_expanded_over_the_batch(which, device, native):
    """Stride 0: every image of the batch is the same memory."""
    case = DEFORM_CASES_BY_NAME["three_images"]
    arguments = deform_arguments(case, torch.float32, device)
    arguments[which] = expanded(arguments[which])
    assert arguments[which].stride(0) == 0
    check(arguments, case)


def test_expanded_gradient_and_weight(device, native):
    """`output.sum().backward()` hands over a gradient with stride 0 everywhere."""
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, torch.float32, device)
    arguments["grad"] = torch.ones((), device=device).expand(arguments["grad"].shape)
    arguments["weight"] = expanded(arguments["weight"])
    assert arguments["grad"].stride() == (0, 0, 0, 0)
    assert arguments["weight"].stride(0) == 0
    check(arguments, case)


def test_offset_and_mask_as_slices_of_one_convolution(device, native):
    """How a layer hands them over: views of one tensor with 3*G*kh*kw channels."""
    case = DEFORM_CASES_BY_NAME["offset_groups_2"]
    arguments = deform_arguments(case, torch.float32, device)
    taps = 9 * case.offset_groups
    both = torch.cat((arguments["offset"], arguments["mask"]), dim=1)
    for tensor in (both, channels_last(both)):
        check(arguments | {"offset": tensor[:, : 2 * taps], "mask": tensor[:, 2 * taps :]}, case)


def test_arguments_are_not_written_to(device, native):
    case = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]
    for layout in (torch.clone, channels_last):
        arguments = in_layout(layout, deform_arguments(case, torch.float32, device))
        before = {key: value.clone() for key, value in arguments.items()}
        run(ops.deform_conv2d, arguments, **case.geometry)
        for key, value in arguments.items():
            assert torch.equal(value, before[key]), key
