"""The same answer each time and, on a CPU, for an image whatever batch it comes in: to the last bit."""

import contextlib

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.compare import assert_bitwise_equal
from helpers.layouts import in_format
from helpers.problems import deform_arguments, run

from resnet_cuda import ops, reference

pytestmark = pytest.mark.usefixtures("native")
NAMES = ("three_images", "groups_2_offset_groups_4", "tiles", "depthwise", "stride_2x3")


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_equal(name, dtype, device):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, dtype, device)
    first = run(ops.deform_conv2d, arguments, **case.geometry)
    second = run(ops.deform_conv2d, arguments, **case.geometry)
    assert_bitwise_equal(second.output, first.output, "output")
    for key, gradient in first.gradients.items():
        assert_bitwise_equal(second.gradients[key], gradient, key)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_alone_is_the_image_in_a_batch(name, memory_format, dtype):
    """Not on a GPU: the matrix product of another number of pixels may be summed in another order there."""
    case = DEFORM_CASES_BY_NAME[name]
    arguments = in_format(deform_arguments(case, dtype), memory_format)
    batch = run(ops.deform_conv2d, arguments, **case.geometry)
    for image in range(case.batch):
        alone = {
            key: value if key in ("weight", "bias") else value[image : image + 1] for key, value in arguments.items()
        }
        got = run(ops.deform_conv2d, alone, **case.geometry)
        assert_bitwise_equal(got.output[0], batch.output[image], f"output {image}")
        for key in ("input", "offset", "mask"):
            assert_bitwise_equal(got.gradients[key][0], batch.gradients[key][image], f"{key} {image}")


@contextlib.contextmanager
def number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_forward_does_not_depend_on_the_number_of_threads(threads, dtype):
    case = DEFORM_CASES_BY_NAME["tiles"]
    arguments = deform_arguments(case, dtype)
    expected = run(ops.deform_conv2d, arguments, (), **case.geometry).output
    with number_of_threads(threads):
        got = run(ops.deform_conv2d, arguments, (), **case.geometry).output
    assert_bitwise_equal(got, expected, "output")


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["tiles", "tiles_grouped", "groups_32", "kernel_7x7_channels_40", "one_column"])
def test_backward_is_right_with_any_number_of_threads(name, memory_format, threads):
    """In float64, where sums in another order differ by less than 1e-12: a lost or doubled update shows."""
    case = DEFORM_CASES_BY_NAME[name]
    arguments = in_format(deform_arguments(case, torch.float64), memory_format)
    with number_of_threads(threads):
        got = run(ops.deform_conv2d, arguments, **case.geometry)
    expected = run(reference.deform_conv2d, arguments, **case.geometry)
    for key, gradient in expected.gradients.items():
        torch.testing.assert_close(
            got.gradients[key], gradient, rtol=1e-11, atol=1e-11, msg=lambda text, k=key: k + text
        )
