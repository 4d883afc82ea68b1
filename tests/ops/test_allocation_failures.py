"""What cannot be allocated: an error that names the operator, the bytes and the shape, and keeps torch's own words."""

from __future__ import annotations

import pytest
import torch

from resnet_cuda import ops

pytestmark = pytest.mark.usefixtures("native")
HUGE = 1 << 40  # more of anything than a processor's address space holds
SIDE = 1 << 25  # an image's, of 4 PiB


def expanded(*size: int) -> torch.Tensor:
    """Of one element's memory."""
    return torch.zeros([1] * len(size)).expand(size)


def message(call, *arguments, **options) -> str:
    """The error's first line; the others keep the words of torch's allocator."""
    with pytest.raises(RuntimeError) as error:
        call(*arguments, **options)
    text = str(error.value)
    first_line = text.splitlines()[0]
    assert "more than 2^63" in first_line or "DefaultCPUAllocator" in text or "out of memory" in text
    return first_line


@pytest.mark.parametrize("channels_last", [False, True])
def test_result_of_deform_conv2d(channels_last):
    input = expanded(HUGE, 2, 16, 16)
    if channels_last:
        input = torch.zeros(1, 16, 16, 2).expand(HUGE, 16, 16, 2).permute(0, 3, 1, 2)
    assert message(ops.deform_conv2d, input, expanded(HUGE, 2, 16, 16), torch.ones(4, 2, 1, 1)).startswith(
        f"deform_conv2d: cannot allocate {HUGE * 4 * 16 * 16 * 4} bytes for a tensor of shape ({HUGE}, 4, 16, 16) of "
        "torch.float32 on cpu: "
    )


def test_more_bytes_than_there_are_numbers_for():
    input, offset = expanded(HUGE, 1, 1024, 1024), expanded(HUGE, 2, 1024, 1024)
    assert message(ops.deform_conv2d, input, offset, torch.ones(16, 1, 1, 1)).startswith(
        f"deform_conv2d: cannot allocate more than 2^63 bytes for a tensor of shape ({HUGE}, 16, 1024, 1024)"
    )


def test_copy_of_an_argument():
    input, offset, weight = expanded(1, 1, SIDE, SIDE), torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 1, 1)
    assert message(ops.deform_conv2d, input, offset, weight, stride=SIDE // 2).startswith(
        f"deform_conv2d: cannot allocate {SIDE * SIDE * 4} bytes for a tensor of shape (1, 1, {SIDE}, {SIDE}) of "
        "torch.float32 on cpu: "
    )


def test_gradients_of_deform_conv2d():
    input, weight, offset = expanded(1, 1, SIDE, SIDE), torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 2, 2)
    tensors = torch.ones(1, 1, 2, 2), input, weight, offset, None
    geometry, needs = (SIDE // 2, SIDE // 2, 0, 0, 1, 1), (True, False, False, False, False)
    assert message(torch.ops.resnet_cuda.deform_conv2d_backward, *tensors, *geometry, *needs).startswith(
        f"deform_conv2d_backward: cannot allocate {SIDE * SIDE * 4} bytes"
    )


@pytest.mark.parametrize("requires_grad", [False, True])
def test_result_of_frozen_bn_relu(requires_grad):
    input = expanded(HUGE, 4, 16, 16).requires_grad_(requires_grad)
    assert message(ops.frozen_bn_relu, input, torch.ones(4), torch.zeros(4)).startswith(
        f"frozen_bn_relu: cannot allocate {HUGE * 4 * 16 * 16 * 4} bytes for a tensor of shape "
    )
