"""What cannot be allocated: an error that names the operator, the bytes and the shape, and keeps torch's own words."""

from __future__ import annotations

import pytest
import torch

from resnet_cuda import ops

pytestmark = pytest.mark.usefixtures("native")
HUGE = 1 << 40  # more of anything than a processor's address space holds


def expanded(*size: int) -> torch.Tensor:
    """Of one element's memory."""
    return torch.zeros([1] * len(size)).expand(size)


def first_line(error: pytest.ExceptionInfo) -> str:
    return str(error.value).splitlines()[0]


def keeps_torchs_words(text: str) -> bool:
    """torch keeps the text of what failed from 2.13 on; before, it only writes it to the standard error."""
    return "DefaultCPUAllocator" in text or "out of memory" in text


@pytest.mark.parametrize("channels_last", [False, True])
def test_result_of_deform_conv2d(channels_last):
    input = expanded(HUGE, 2, 16, 16)
    if channels_last:
        input = torch.zeros(1, 16, 16, 2).expand(HUGE, 16, 16, 2).permute(0, 3, 1, 2)
    with pytest.raises(RuntimeError) as error:
        ops.deform_conv2d(input, expanded(HUGE, 2, 16, 16), torch.ones(4, 2, 1, 1))
    text = first_line(error)
    assert text.startswith(
        f"deform_conv2d: cannot allocate {HUGE * 4 * 16 * 16 * 4} bytes for a tensor of shape ({HUGE}, 4, 16, 16) of "
        "torch.float32 on cpu: "
    )
    assert keeps_torchs_words(str(error.value))


def test_more_bytes_than_there_are_numbers_for():
    input, offset = expanded(HUGE, 1, 1024, 1024), expanded(HUGE, 2, 1024, 1024)
    with pytest.raises(RuntimeError) as error:
        ops.deform_conv2d(input, offset, torch.ones(16, 1, 1, 1))
    assert first_line(error).startswith(
        f"deform_conv2d: cannot allocate more than 2^63 bytes for a tensor of shape ({HUGE}, 16, 1024, 1024)"
    )


def test_copy_of_an_argument():
    side = 1 << 25
    with pytest.raises(RuntimeError) as error:
        ops.deform_conv2d(expanded(1, 1, side, side), torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 1, 1), stride=side // 2)
    assert first_line(error).startswith(
        f"deform_conv2d: cannot allocate {side * side * 4} bytes for a tensor of shape (1, 1, {side}, {side}) of "
        "torch.float32 on cpu: "
    )
    assert keeps_torchs_words(str(error.value))


def test_gradients_of_deform_conv2d():
    side = 1 << 25
    input, weight, offset = expanded(1, 1, side, side), torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 2, 2)
    needs = (True, False, False, False, False)
    with pytest.raises(RuntimeError, match=rf"^deform_conv2d_backward: cannot allocate {side * side * 4} bytes"):
        torch.ops.resnet_cuda.deform_conv2d_backward(
            torch.ones(1, 1, 2, 2), input, weight, offset, None, *(side // 2, side // 2, 0, 0, 1, 1), *needs
        )


@pytest.mark.parametrize("requires_grad", [False, True])
def test_result_of_frozen_bn_relu(requires_grad):
    input = expanded(HUGE, 4, 16, 16).requires_grad_(requires_grad)
    with pytest.raises(RuntimeError) as error:
        ops.frozen_bn_relu(input, torch.ones(4), torch.zeros(4))
    text = first_line(error)
    assert text.startswith(f"frozen_bn_relu: cannot allocate {HUGE * 4 * 16 * 16 * 4} bytes for a tensor of shape ")
    assert keeps_torchs_words(str(error.value))
