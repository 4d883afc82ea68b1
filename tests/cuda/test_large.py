"""Tensors with more than 2^31 elements: every index must be 64 bits wide."""

import pytest
import torch
from helpers.gpu import NEEDS_GPU, check_large_deform_conv, check_large_norm, one_process_at_a_time

pytestmark = NEEDS_GPU


@pytest.fixture(autouse=True)
def _memory():
    """Given back before and after; under pytest-xdist one of these tests at a time."""
    with one_process_at_a_time("large"):
        torch.cuda.empty_cache()
        yield
        torch.cuda.empty_cache()


def needs(gigabytes):
    free = torch.cuda.mem_get_info()[0] / 1e9
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes} GB of free GPU memory; {free:.1f} GB are free")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_frozen_bn_relu(memory_format):
    """The third image begins at element 2^31. At most five tensors of 6.4 GB at a time."""
    needs(40)
    check_large_norm((3, 64, 4096, 4096), memory_format, "cuda")


def test_deform_conv2d():
    """2.9e9 elements of input, 2.2e9 of offset: 5.8 and 4.3 GB, the same again for gradients, and float32 sums."""
    needs(48)
    check_large_deform_conv(1830, 24, (256, 256), "cuda")
