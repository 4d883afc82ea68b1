"""The current stream: work is ordered on it, forward and backward, and waits for no other."""

import pytest
import torch
from helpers.gpu import NEEDS_GPU, assert_runs_equal, block_run, layer_arguments

pytestmark = NEEDS_GPU
SHAPE = (64, 33, 29)
LONG = 4_000_000_000  # clock cycles, about two seconds: other processes may have the GPU in between


@pytest.fixture
def problem():
    arguments = layer_arguments(SHAPE, 2, torch.float32, "cuda")
    residual = torch.randn_like(arguments["input"])
    return arguments, residual, block_run(arguments, residual)


def test_the_current_stream_is_used(problem):
    """A kernel on another stream would read the input before the sleeping stream has written it."""
    arguments, residual, expected = problem
    right = arguments["input"].clone()
    arguments["input"].zero_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG // 40)
        arguments["input"].copy_(right)
        got = block_run(arguments, residual)
    stream.synchronize()
    assert_runs_equal(got, expected)


def test_a_busy_default_stream_does_not_delay_another(problem):
    arguments, residual, expected = problem
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        block_run(arguments, residual)  # memory and kernels are there from now on
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    default_is_done = torch.cuda.Event()
    default_is_done.record()
    with torch.cuda.stream(stream):
        got = block_run(arguments, residual)
    stream.synchronize()
    still_busy = not default_is_done.query()
    torch.cuda.synchronize()
    assert still_busy, "the side stream has waited for the default stream"
    assert_runs_equal(got, expected)


def test_two_streams_at_once(problem):
    """Each has memory of its own: results do not mix."""
    arguments, residual, expected = problem
    others = layer_arguments(SHAPE, 2, torch.float32, "cuda")
    others["input"] = others["input"] * 3
    others_expected = block_run(others, residual)
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream(), torch.cuda.Stream()], ([], [])
    for _ in range(5):
        for stream, own, kept in zip(streams, (arguments, others), results, strict=True):
            with torch.cuda.stream(stream):
                kept.append(block_run(own, residual))
    torch.cuda.synchronize()
    for kept, right in zip(results, (expected, others_expected), strict=True):
        for got in kept:
            assert_runs_equal(got, right)
