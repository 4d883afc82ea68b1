"""Which way a folded convolution is run on a CPU, and that every way gives the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_convolutions import folded, problem
from torch import nn

from resnet_cuda.inference import onednn, strategies
from resnet_cuda.inference.convolution import FoldedConv2d

GEOMETRIES = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4},
    {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1)},
]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("way", ["plain", "onednn"])
def test_every_way_gives_the_same(way, geometry, relu, bias, dtype):
    conv = folded(relu, bias, dtype, **geometry)
    x, residual = problem(conv, dtype)
    if way == "onednn" and not onednn.takes(conv, None, x.dtype):
        pytest.skip("this torch or processor has no such operators")
    run = strategies.plain if way == "plain" else onednn.run
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    exact = F.conv2d(
        x.double(), conv.weight.double(), conv.bias.double() if bias else None, conv.stride, conv.padding,
        conv.dilation, conv.groups,
    )  # fmt: skip
    for summand in (None, residual):
        if way == "onednn" and not onednn.takes(conv, summand, x.dtype):
            assert conv.groups > 1
            continue
        expected = exact if summand is None else exact + summand.double()
        expected = expected.relu() if relu else expected
        kept = None if summand is None else summand.clone()
        found = run(conv, x, summand, False)
        torch.testing.assert_close(found.double(), expected, **tolerance)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
        assert summand is None or torch.equal(summand, kept)
    if way == "onednn" and conv.groups > 1:
        return
    own = residual.clone(memory_format=torch.channels_last)
    torch.testing.assert_close(run(conv, x, own, True), run(conv, x, residual, False), **tolerance)
    nchw = residual.contiguous()
    torch.testing.assert_close(run(conv, x, nchw, False), run(conv, x, residual, False), **tolerance)
    assert torch.equal(nchw, residual)


@torch.no_grad()
def test_onednn_runs_where_it_can_and_not_elsewhere(monkeypatch):
    conv = folded()
    x, residual = problem(conv)
    if onednn.operators() is None:
        pytest.skip("this torch has no such operators")
    assert strategies.strategy_for(conv, x, None) is onednn.run
    expected = conv(x, residual)
    assert strategies.strategy_for(conv, x[:0], None) is strategies.plain
    assert strategies.strategy_for(folded(dtype=torch.float64), x.double(), None) is strategies.plain
    assert strategies.strategy_for(conv, x.bfloat16(), None) is strategies.plain  # torch's error: weights are float32
    assert strategies.strategy_for(folded(padding="same"), x, None) is strategies.plain
    reflecting = folded(padding=1, padding_mode="reflect")
    assert strategies.strategy_for(reflecting, x, None) is strategies.plain
    with torch.backends.mkldnn.flags(enabled=False):
        assert strategies.strategy_for(conv, x, None) is strategies.plain
        torch.testing.assert_close(conv(x, residual), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(onednn, "operators", lambda: None)
    assert strategies.strategy_for(conv, x, None) is strategies.plain
    torch.testing.assert_close(conv(x, residual), expected, rtol=1e-5, atol=1e-5)


def test_onednn_operators_with_other_arguments_are_not_called(monkeypatch):
    onednn.operators.cache_clear()
    monkeypatch.setitem(onednn._ARGUMENTS, ("_convolution_pointwise", "default"), "X W B something_else")
    assert onednn.operators() is None
    onednn.operators.cache_clear()
    monkeypatch.undo()
    assert (onednn.operators() is None) != torch.backends.mkldnn.is_available()


WRONG_SHAPES = [  # kernel, padding, dilation and groups of a convolution from 8 channels, and an image's shape
    ({"kernel_size": 1}, (1, 7, 9, 9)),
    ({"kernel_size": 3, "padding": 1}, (1, 9, 9, 9)),
    ({"kernel_size": 3, "padding": 1}, (2, 1, 64, 64)),
    ({"kernel_size": 3, "padding": 1, "groups": 4}, (1, 2, 9, 9)),
    ({"kernel_size": 7, "stride": 2, "padding": 3}, (1, 4, 64, 64)),
    ({"kernel_size": 3}, (1, 8, 2, 9)),
    ({"kernel_size": 3}, (1, 8, 64, 1)),
    ({"kernel_size": 3}, (1, 8, 1, 1)),
    ({"kernel_size": 3, "padding": 1, "dilation": 2}, (1, 8, 2, 9)),
    ({"kernel_size": (1, 5), "padding": (0, 1)}, (1, 8, 9, 2)),
]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize(("geometry", "shape"), WRONG_SHAPES, ids=str)
def test_an_image_of_a_wrong_shape_gets_torchs_error(geometry, shape, with_residual, dtype):
    conv = folded(dtype=dtype, **geometry)
    x = torch.randn(shape, dtype=dtype)
    with pytest.raises(RuntimeError) as expected:
        conv._conv_forward(x, conv.weight, None)
    with pytest.raises(RuntimeError) as found:
        conv(x, torch.randn(1, 12, 9, 9, dtype=dtype) if with_residual else None)
    assert str(found.value) == str(expected.value)
    assert "expected input" in str(found.value) or "Kernel size can't be greater" in str(found.value)


@torch.no_grad()
@pytest.mark.parametrize("size", [3, 4])
def test_the_smallest_image_still_runs_fast(size):
    conv = folded(kernel_size=3, padding=0)
    x = torch.randn(1, 8, size, 3).contiguous(memory_format=torch.channels_last)
    if onednn.takes(conv, None, x.dtype):
        assert strategies.strategy_for(conv, x, None) is not strategies.plain
    torch.testing.assert_close(conv(x), conv.functional(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("way", ["plain", "onednn", "winograd"])
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("value", [1, [1], (1,), [1, 1], torch.Size([1, 1])], ids=repr)
def test_a_geometry_as_torchs_convolution_takes_it(value, name, way, monkeypatch):
    """Other code sets ``conv.stride = 1``, say, before the copy is made or in it."""
    kernel, channels = (1, 8) if way == "onednn" else (3, 64)
    if way == "plain":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
        monkeypatch.setattr(strategies.winograd, "takes", lambda *_: False)
    conv = folded_from(nn.Conv2d(channels, 64, kernel, padding=1))
    x, residual = torch.randn(1, channels, 32, 32), None
    expected = conv(x)
    setattr(conv, name, value)
    for residual in (None, torch.randn_like(expected)):
        torch.testing.assert_close(conv(x, residual), conv.functional(x, residual), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 64, 3, 3), (64, 40, 3, 3), (64, 64, 1, 1), (64, 64, 5, 5)], ids=str)
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_weight_of_another_shape_than_the_attributes_say(kernel, shape, bias):
    """Pruning replaces the weight, and need not set ``out_channels``, which torch's convolution does not ask."""
    conv = folded_from(nn.Conv2d(64, 64, kernel, padding=1, bias=bias))
    conv.weight = nn.Parameter(torch.randn(shape).contiguous(memory_format=torch.channels_last), False)
    if bias:
        conv.bias = nn.Parameter(torch.randn(shape[0]), False)
    x = torch.randn(1, shape[1], 32, 32)
    expected = conv.functional(x)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-3)
    residual = torch.randn_like(expected)
    torch.testing.assert_close(conv(x, residual), conv.functional(x, residual), rtol=1e-4, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_residual_with_the_channels_of_the_attributes(overwrite):
    conv = folded_from(nn.Conv2d(64, 64, 1))
    conv.weight, conv.bias = nn.Parameter(conv.weight[:32].clone(), False), nn.Parameter(conv.bias[:32].clone(), False)
    with pytest.raises(RuntimeError, match="size of tensor"):
        conv(torch.randn(1, 64, 8, 8), torch.randn(1, 64, 8, 8), overwrite)


@torch.no_grad()
@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("of_residual", [torch.float32, torch.float64, torch.float16, torch.int64], ids=str)
def test_a_residual_of_another_dtype(of_residual, dtype, library, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", library)
    conv = folded(dtype=dtype, padding=1)
    x, residual = problem(conv, dtype)
    residual = (4 * residual).to(of_residual)
    found = conv(x, residual)
    assert found.dtype == dtype
    rough = dtype in (torch.float16, torch.bfloat16)
    tolerance = {"rtol": 2e-2, "atol": 1e-1} if rough else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found, conv.functional(x, residual), **tolerance)


@torch.no_grad()
def test_a_complex_residual_is_torchs_error():
    conv = folded(padding=1)
    x, residual = problem(conv)
    with pytest.raises(RuntimeError, match="can't be cast"):
        conv(x, residual.to(torch.complex64))


def folded_from(conv):
    FoldedConv2d.take_over(conv, conv.weight.detach(), None if conv.bias is None else conv.bias.detach(), True)
    return conv.eval()
