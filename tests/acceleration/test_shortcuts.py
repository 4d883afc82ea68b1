"""Shortcuts of accelerated blocks that are of another shape or dtype: torch adds them in place, so they broadcast."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.accelerated import randomised, results
from torch import nn

from resnet_cuda.acceleration import accelerate

pytest.importorskip("torchvision")
from torchvision.models import resnet


class Shortcut(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


SHORTCUTS = {
    "pooled": lambda x: x.mean((2, 3), keepdim=True),
    "one channel": lambda x: x.mean(1, keepdim=True),
    "one image": lambda x: x[:1],
    "no batch": lambda x: x[0],
    "scalar": lambda x: x.mean(),
    "number": lambda x: 0.5,
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "integers": lambda x: x.long(),
    "expanded": lambda x: x.mean(1, keepdim=True).expand_as(x),
}
REFUSED = {
    "cropped": lambda x: x[:, :, 1:],
    "a larger batch": lambda x: torch.cat([x, x]),
    "complex": lambda x: x.to(torch.complex64),
}


def torchvisions(kind):
    return getattr(resnet, kind)(8, 8 if kind == "BasicBlock" else 2)


def timms(kind):
    blocks = pytest.importorskip("timm.models.resnet")
    return getattr(blocks, kind)(8, 8 if kind == "BasicBlock" else 2)


def block_with(make, kind, shortcut, frozen):
    block = randomised(make(kind)).train(not frozen)
    block.downsample = Shortcut(shortcut)
    return block.requires_grad_(not frozen)


@pytest.mark.parametrize("frozen", [True, False], ids=["fused", "trained"])
@pytest.mark.parametrize("kind", ["BasicBlock", "Bottleneck"])
@pytest.mark.parametrize("make", [torchvisions, timms])
@pytest.mark.parametrize("name", SHORTCUTS)
def test_same_as_the_librarys(name, make, kind, frozen):
    block = block_with(make, kind, SHORTCUTS[name], frozen)
    fast = copy.deepcopy(block)
    assert accelerate(fast).replaced
    x = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0))
    expected, found = results(block, x), results(fast, x)
    assert found["output"].dtype == expected["output"].dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_by_the_library(name):
    block = block_with(torchvisions, "BasicBlock", REFUSED[name], True)
    fast = copy.deepcopy(block)
    accelerate(fast)
    x = torch.randn(2, 8, 6, 5)
    with pytest.raises(RuntimeError) as expected:
        block(x)
    with pytest.raises(RuntimeError) as found:
        fast(x)
    assert str(found.value) == str(expected.value)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pooled", "float64", "number"])
def test_compiled(name):
    block = block_with(torchvisions, "BasicBlock", SHORTCUTS[name], True)
    x = torch.randn(2, 8, 6, 5)
    expected = block(x)
    accelerate(block)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pooled", "float64", "bfloat16", "integers"])
def test_autocast(name):
    block = block_with(torchvisions, "BasicBlock", SHORTCUTS[name], True)
    fast = copy.deepcopy(block)
    accelerate(fast)
    x = torch.randn(2, 8, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = fast(x), block(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_a_shortcut_of_the_right_shape_stays_fused(monkeypatch):
    from resnet_cuda.acceleration import fused

    block = block_with(torchvisions, "BasicBlock", lambda x: x * 2, True)
    accelerate(block)
    calls, original = [], fused.frozen_batch_norm
    monkeypatch.setattr(fused, "frozen_batch_norm", lambda *a, **k: calls.append(a[6]) or original(*a, **k))
    block(torch.randn(2, 8, 6, 5))
    assert len(calls) == 2 and calls[1] is not None
