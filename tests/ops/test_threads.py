"""In DataLoader workers and inside of a parallel region the CPU operators start no threads of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers.compare import assert_bitwise_equal
from helpers.cpp_library import load_cpp
from torch.utils.data import DataLoader, Dataset

from resnet_cuda import ops

TASKS = Path("/proc/self/task")
pytestmark = [
    pytest.mark.usefixtures("registered"),
    pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc, which Linux has"),
]


def threads() -> int:
    return len(os.listdir(TASKS))


def arguments() -> dict[str, torch.Tensor]:
    """Enough work for every thread that there may be."""
    generator = torch.Generator().manual_seed(0)
    return {
        "input": torch.randn(1, 64, 40, 40, generator=generator),
        "offset": torch.randn(1, 18, 40, 40, generator=generator),
        "weight": torch.randn(64, 64, 3, 3, generator=generator),
    }


class Warped(Dataset):
    """Each item: how many threads the worker has before and after forward and backward of both operators."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        leaves = {name: value.requires_grad_() for name, value in arguments().items()}
        before = threads()
        output = ops.deform_conv2d(**leaves, padding=1)
        ops.frozen_bn_relu(output, torch.ones(64), torch.zeros(64)).sum().backward()
        return torch.tensor([before, threads(), torch.get_num_threads()])


def test_a_dataloader_worker_stays_one_thread():
    found = list(DataLoader(Warped(), batch_size=None, num_workers=2))
    assert len(found) == 2
    for before, after, allowed in torch.stack(found).tolist():
        # Autograd has a thread of its own for a backward on the CPU only where there are devices to have threads for.
        assert allowed == 1
        assert after == before


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory):
    load_cpp(Path(__file__).with_name("nested_parallel.cpp"), tmp_path_factory.mktemp("nested"))
    return torch.ops.resnet_cuda_nested_test


CALLS = 6


def test_inside_of_a_parallel_region(nested):
    """The same bits as outside, and no thread more than the region's."""
    tensors = arguments()
    input, offset, weight = tensors["input"], tensors["offset"], tensors["weight"]
    scale, shift = torch.rand(64), torch.rand(64)
    grad = torch.ones(1, 64, 40, 40)
    kernels = torch.ops.resnet_cuda
    normalised = kernels.frozen_bn_relu(input, scale, shift, None, True)
    needs = (True, False, False, False, False)
    gradient = kernels.deform_conv2d_backward(grad, input, weight, offset, None, *[1] * 6, *needs)[0]
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # the pool is there
    before = threads()
    for result in nested.frozen_bn_relu_in_parallel(input, scale, shift, CALLS):
        assert_bitwise_equal(result, normalised, "frozen_bn_relu")
    for result in nested.deform_conv2d_backward_in_parallel(grad, input, weight, offset, CALLS):
        assert_bitwise_equal(result, gradient, "gradient for input")
    assert threads() == before
