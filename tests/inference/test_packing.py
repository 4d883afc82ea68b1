"""The cache of a folded convolution's packed weights."""

from __future__ import annotations

import pytest
import torch
from helpers.folded_convolutions import folded
from torch import nn

from resnet_cuda.inference import onednn
from resnet_cuda.inference.packing import MOST_SHAPES, Packed


@torch.no_grad()
def test_packed_weights_are_bounded_and_dropped_with_the_weight():
    conv = folded()
    if onednn.operators() is None:
        pytest.skip("this torch has no such operators")
    for size in range(5, 5 + 3 * MOST_SHAPES):
        conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == MOST_SHAPES
    conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == MOST_SHAPES
    conv.weight.add_(1)
    conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == 1
    conv.to(torch.float32)
    assert len(conv.packed) == 0


def test_packed_keeps_the_most_recently_used():
    packed, conv, made = Packed(), nn.Conv2d(1, 1, 1), []

    def get(key):
        return packed.get("kind", key, conv, lambda: made.append(key) or f"value {key}")

    for key in ("a", "b", "a", "c", "a"):
        assert get(key) == f"value {key}"
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
    with torch.no_grad():
        conv.bias.add_(1)
    get("b")
    assert made == ["a", "b", "c", "b", "b"] and len(packed) == 1
