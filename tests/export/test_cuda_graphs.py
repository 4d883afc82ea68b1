"""CUDA graphs of whole backbones: captured once, replayed on other images, eager's outputs to the last bit."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import levels_of, torchvision_style

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dcn", [False, True])
def test_replay_equals_eager(dcn, dtype):
    network = torchvision_style(dcn).eval().to("cuda", dtype, memory_format=torch.channels_last)
    images = torch.randn(2, 3, 96, 160, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        features = network(images)
    for seed in range(3):
        images.copy_(torch.randn(images.shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda"))
        graph.replay()
        got = [level.clone() for level in levels_of(features)]
        with torch.no_grad():
            expected = levels_of(network(images))
        for one, right in zip(got, expected, strict=True):
            assert right.any()
            assert torch.equal(one, right)


def test_a_compiled_backbone_with_graphs_of_its_own():
    """``mode="reduce-overhead"`` captures by itself."""
    network = torchvision_style(True, "resnet18").eval().cuda()
    compiled = torch.compile(network, mode="reduce-overhead", fullgraph=True)
    with torch.no_grad():
        for seed in range(4):
            x = torch.randn(2, 3, 64, 96, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
            expected = levels_of(network(x))
            got = [level.clone() for level in levels_of(compiled(x))]
            torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)
