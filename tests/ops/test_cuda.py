"""What only a GPU can show: the current stream, the device of the tensors, CUDA graphs, no synchronisation."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.problems import assert_deform_run_close, deform_arguments, run

from resnet_cuda import ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU that torch can use"),
    pytest.mark.usefixtures("native"),
]
CASE = DEFORM_CASES_BY_NAME["tiles_grouped"]


def block(arguments, constants):
    tensors = {key: value for key, value in arguments.items() if key != "grad"}
    return ops.frozen_bn_relu(ops.deform_conv2d(**tensors, **CASE.geometry), *constants, inplace=True)


def constants(device):
    return torch.ones(CASE.out_channels, device=device), torch.full((CASE.out_channels,), 0.5, device=device)


def test_the_current_stream_is_used():
    """A kernel on another stream would read the input before the sleeping stream has written it."""
    arguments = deform_arguments(CASE, torch.float32, "cuda")
    expected = block(arguments, constants("cuda"))
    right = arguments["input"].clone()
    arguments["input"].zero_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        arguments["input"].copy_(right)
        got = block(arguments, constants("cuda"))
    stream.synchronize()
    assert torch.equal(got, expected)


def test_cuda_graph():
    """Captured once, replayed on other values: no hidden synchronisation, no memory that is gone at replay."""
    arguments = deform_arguments(CASE, torch.float32, "cuda")
    fixed = constants("cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        block(arguments, fixed)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = block(arguments, fixed)
    for seed in (1, 2):
        for key, value in deform_arguments(CASE, torch.float32, "cuda", seed=seed).items():
            arguments[key].copy_(value)
        graph.replay()
        assert torch.equal(output, block(arguments, fixed))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA GPU")
def test_tensors_on_the_second_gpu():
    """While the first one is current, which stays so."""
    arguments = deform_arguments(CASE, torch.float32, "cuda:1")
    assert torch.cuda.current_device() == 0
    got = run(ops.deform_conv2d, arguments, **CASE.geometry)
    assert got.output.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert_deform_run_close(got, arguments, CASE)
