"""CUDA graphs: captured once, replayed on other values, the results are the eager ones to the last bit."""

import pytest
import torch
from helpers.gpu import NEEDS_GPU, PADDED, layer_arguments

from resnet_cuda import ops

pytestmark = NEEDS_GPU
SHAPE = (64, 33, 29)
LEAVES = ("input", "offset", "weight", "bias", "mask")


def captured(step):
    """A graph of ``step`` and its results, which each replay writes anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph, results


def assert_replays_equal_eager(step, tensors):
    """``tensors`` are what ``step`` reads; three times they get other values, in place."""
    graph, results = captured(step)
    generator = torch.Generator("cuda").manual_seed(5)
    before = None
    for _ in range(3):
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(torch.randn(tensor.shape, generator=generator, device="cuda"))
        graph.replay()
        got = [result.clone() for result in results]
        expected = step()
        for index, (one, right) in enumerate(zip(got, expected, strict=True)):
            assert right.any()
            assert torch.equal(one, right), f"result {index}"
        assert before is None or not torch.equal(before, got[0]), "the replay has not seen the new values"
        before = got[0]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_deform_conv2d_forward_and_backward(dtype, channels_last):
    arguments = layer_arguments(SHAPE, 2, dtype, "cuda", channels_last)
    grad = arguments.pop("grad")
    leaves = {name: arguments[name].requires_grad_() for name in LEAVES}

    def step():
        output = ops.deform_conv2d(**leaves, **PADDED)
        return output.detach(), *torch.autograd.grad(output, list(leaves.values()), grad)

    assert_replays_equal_eager(step, [*leaves.values(), grad])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_frozen_bn_relu_forward_and_backward(dtype, inplace):
    leaf, residual, grad = (torch.randn(2, 64, 33, 29, device="cuda").to(dtype) for _ in range(3))
    scale, shift = torch.rand(64, device="cuda") + 0.5, torch.randn(64, device="cuda")
    leaf.requires_grad_()
    residual.requires_grad_()

    def step():
        output = ops.frozen_bn_relu(leaf * 1, scale, shift, residual, inplace=inplace)
        return output.detach(), *torch.autograd.grad(output, (leaf, residual), grad)

    assert_replays_equal_eager(step, [leaf, residual, grad])
