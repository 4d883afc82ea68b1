"""The gradient of the bias: sums over pixels, chunks and blocks, in a fixed order."""

from __future__ import annotations

import pytest
import torch

# Packs of 4 float32: below, at and above the 256 threads of a block, and twice as many; and no whole packs.
OUTPUTS = (1, 3, 4, 24, 127 * 4, 128 * 4, 255 * 4, 256 * 4, 257 * 4, 513 * 4, 1030)
NEEDS = (False, False, False, False, True)


def bias_gradient(emulated, grad: torch.Tensor) -> torch.Tensor:
    """Of a 1x1 layer of one input channel; the other gradients are not asked for."""
    batch, outputs, *size = grad.shape
    input, weight = torch.zeros(batch, 1, *size, dtype=grad.dtype), torch.zeros(outputs, 1, 1, 1, dtype=grad.dtype)
    offset = torch.zeros(batch, 2, *size, dtype=grad.dtype)
    return emulated.deform_conv2d_backward(grad, input, weight, offset, None, 1, 1, 0, 0, 1, 1, *NEEDS)[4]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("multiprocessors", ["1", "4", "50"])
@pytest.mark.parametrize("size", [(1, 2), (3, 7)], ids=str)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_sums_of_whole_numbers_are_exact(emulated, monkeypatch, outputs, size, multiprocessors, memory_format):
    """Each pixel once, whatever the number of blocks, 52 to 1 in this workspace: more than there are pixels, too."""
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", multiprocessors)
    grad = torch.randint(-8, 9, (3, outputs, *size)).float().contiguous(memory_format=memory_format)
    assert torch.equal(bias_gradient(emulated, grad), grad.sum((0, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("outputs", [8, 17])
def test_sums_are_rounded_once(emulated, dtype, outputs):
    """1, then many numbers of which each alone would be lost in a 16-bit sum."""
    grad = torch.full((2, outputs, 16, 32), 2.0**-12, dtype=dtype)
    grad[0, :, 0, 0] = 1
    expected = (1 + (grad[0, 0].numel() * 2 - 1) * 2.0**-12) * torch.ones(outputs, dtype=torch.float64)
    assert torch.equal(bias_gradient(emulated, grad), expected.to(dtype))


def test_rows_that_are_not_aligned(emulated):
    """A view into another tensor, whose rows do not begin at 16 bytes."""
    room = torch.randint(-8, 9, (1 + 2 * 8 * 15,)).float()
    grad = room[1:].view(2, 3, 5, 8).permute(0, 3, 1, 2)
    assert grad.data_ptr() % 16 != 0
    assert torch.equal(bias_gradient(emulated, grad), grad.sum((0, 2, 3)))


def test_rounding_does_not_add_up_over_the_partial_sums(emulated):
    """1, then 50 numbers that are each lost beside it but not all together; a row per block."""
    grad = torch.full((3, 1, 1, 17), 2.0**-53, dtype=torch.float64)
    grad[0, 0, 0, 0] = 1
    assert 40 * 2.0**-53 <= bias_gradient(emulated, grad).item() - 1 <= 50 * 2.0**-53
