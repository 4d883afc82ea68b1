"""Scratch memory is bounded, and running out of memory is an error like any other."""

import gc

import pytest
import torch
from helpers.gpu import NEEDS_GPU, PADDED, STAGES, assert_runs_equal, deform_run, extra_bytes, layer_arguments

from resnet_cuda import ops

pytestmark = NEEDS_GPU
MOST_EXTRA = 64 * 2**20


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("stage", STAGES)
def test_forward_needs_little_beside_its_result(stage, batch):
    arguments = layer_arguments(STAGES[stage], batch, torch.bfloat16, "cuda")
    del arguments["grad"]

    def call():
        with torch.no_grad():
            return [ops.deform_conv2d(**arguments, **PADDED)]

    assert extra_bytes(call) <= MOST_EXTRA


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("stage", STAGES)
def test_backward_needs_little_beside_its_results(stage, batch):
    arguments = layer_arguments(STAGES[stage], batch, torch.bfloat16, "cuda")
    grad = arguments.pop("grad")
    leaves = [tensor.requires_grad_() for tensor in arguments.values()]
    output = ops.deform_conv2d(**arguments, **PADDED)
    assert extra_bytes(lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True)) <= MOST_EXTRA


@pytest.fixture
def limited():
    """Sets how many bytes more than now this process may take."""

    def limit(more):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + more) / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def assert_raises_and_releases(call):
    """The error that training loops expect, after which no memory stays allocated."""
    torch.cuda.synchronize()
    gc.collect()  # what an earlier test has left in a cycle would go during the call
    before = torch.cuda.memory_allocated()
    try:
        call()
    except torch.OutOfMemoryError as error:
        print(error)  # nothing else keeps it: its frames hold tensors
        assert "CUDA out of memory. " in str(error)
    else:
        pytest.fail("there was memory enough")
    gc.collect()
    assert torch.cuda.memory_allocated() == before, "memory of the failed call is still held"


# No room for the result of 275 MB; room for it, but not for backward's scratch memory.
@pytest.mark.parametrize("megabytes", [64, 290])
def test_out_of_memory_is_an_error_and_the_next_call_works(limited, megabytes):
    small = layer_arguments((16, 20, 20), 2, torch.float32, "cuda")
    expected = deform_run(small)
    large = layer_arguments(STAGES["C3"], 32, torch.float32, "cuda")
    limited(megabytes * 10**6)
    assert_raises_and_releases(lambda: deform_run(large))
    assert_runs_equal(deform_run(small), expected)
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert deform_run(large).output.isfinite().all()  # it was the memory and nothing else


def test_frozen_bn_relu_out_of_memory(limited):
    large, scale = torch.randn(8, 64, 400, 672, device="cuda"), torch.ones(64, device="cuda")
    expected = large.relu()
    limited(64 * 10**6)
    assert_raises_and_releases(lambda: ops.frozen_bn_relu(large, scale, torch.zeros_like(scale)))
    found = ops.frozen_bn_relu(large, scale, torch.zeros_like(scale), inplace=True)
    torch.cuda.set_per_process_memory_fraction(1.0)  # the comparison needs memory of its own
    assert torch.equal(found, expected)
