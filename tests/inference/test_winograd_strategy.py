"""Where a folded convolution is run by Winograd's algorithm."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_convolutions import folded, problem
from torch import nn

from resnet_cuda.inference import winograd
from resnet_cuda.inference.convolution import FoldedConv2d


class Winograd(types.SimpleNamespace):
    """Stands in for the compiled operator: torch's convolution, in float32."""

    def __init__(self, pays):
        super().__init__(asked=[], packs=0, calls=0)
        self.pays = pays

    def replace(self, monkeypatch):
        for name in ("winograd_weight", "winograd_usable", "winograd_pays", "conv2d_winograd"):
            monkeypatch.setattr(winograd, name, getattr(self, name))

    def winograd_weight(self, weight):
        self.packs += 1
        return weight.flip(2, 3)

    def winograd_usable(self, dtype):
        return dtype in (torch.float32, torch.bfloat16)

    def winograd_pays(self, channels, out_channels, height, width, threads, dtype):
        assert threads == torch.get_num_threads()
        self.asked.append((channels, out_channels, height, width))
        return self.pays

    def conv2d_winograd(self, input, weight, out_channels, bias=None, residual=None, relu=False, padding=1):
        self.calls += 1
        assert weight.dtype == torch.float32 and (bias is None or bias.dtype == torch.float32)
        assert residual is None or residual.dtype == input.dtype
        out = F.conv2d(input.float(), weight.flip(2, 3), bias, padding=padding).to(input.dtype)
        out = out if residual is None else out + residual
        return (out.relu() if relu else out).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
def test_winograd_where_it_pays(monkeypatch, native, autocast):
    stub = Winograd(pays=True)
    stub.replace(monkeypatch)
    conv = folded(padding=1)
    x, residual = problem(conv)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [conv(x, residual), conv(x)]
        expected = [conv.functional(x, residual.to(found[0].dtype)), conv.functional(x)]
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if autocast else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **tolerance)
    assert (stub.calls, stub.packs) == (2, 1)
    assert set(stub.asked) == {(8, 12, 11, 14)}
    for other in ({"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 1}, {"padding": 3}):
        conv = folded(**other)
        torch.testing.assert_close(conv(x), conv.functional(x), rtol=1e-5, atol=1e-5)
    assert stub.calls == 2
    stub.pays = False
    folded(padding=1)(x)
    assert stub.calls == 2


@torch.no_grad()
def test_a_backbone_with_the_compiled_winograd_is_the_original(monkeypatch, native):
    import resnet_cuda

    if not winograd.winograd_usable(torch.float32):
        pytest.skip("no vector instructions that it pays with")
    calls = []
    kernel = winograd.conv2d_winograd
    monkeypatch.setattr(winograd, "conv2d_winograd", lambda *args: calls.append(args) or kernel(*args))
    torch.manual_seed(0)
    model = resnet_cuda.resnet_fpn_backbone("resnet50", width=32, fpn_channels=64, norm_layer="bn").eval()
    images = torch.rand(2, 3, 160, 192)
    exact = model.double()(images.double())
    found = resnet_cuda.optimize_for_inference(model.float())(images)
    assert len(calls) > 10  # the stages' and the pyramid's
    for name, level in exact.items():
        assert (found[name] - level).abs().max() < 2e-5 * level.std(), name


@torch.no_grad()
def test_winograd_is_not_asked_with_the_reference_backend(monkeypatch):
    import resnet_cuda

    stub = Winograd(pays=True)
    stub.replace(monkeypatch)
    with resnet_cuda.use_backend("reference"):
        folded(padding=1)(torch.zeros(1, 8, 5, 5))
    assert stub.calls == 0


@torch.no_grad()
@pytest.mark.parametrize("channels", [32, 128])
def test_other_channels_for_winograds_algorithm(channels):
    conv = nn.Conv2d(64, 64, 3, padding=1)
    FoldedConv2d.take_over(conv, conv.weight.detach(), conv.bias.detach(), True)
    with pytest.raises(RuntimeError, match=f"to have 64 channels, but got {channels} channels"):
        conv(torch.randn(1, channels, 56, 56))
