"""What tests of torch.compile share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """For every test of a module that imports it: nothing compiled before counts."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counter:
    """A compiler back end that counts the graphs it is given, and the operators of this package in them."""

    def __init__(self, backend: str):
        self.graphs = 0
        self.operators: set[str] = set()
        self.compile = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph, inputs):
        self.graphs += 1
        self.operators |= {str(it.target) for it in graph.graph.nodes if "resnet_cuda" in str(it.target)}
        return self.compile(graph, inputs)
