"""Which way a folded convolution is run, and that every way gives the same."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_cuda.inference import addmm, cuda, cudnn, onednn, strategies, winograd
from resnet_cuda.inference.choice import MOST_TIMED, FastestChoice
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.packing import MOST_SHAPES, Packed

GEOMETRIES = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4},
    {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1)},
]


def folded(relu=True, bias=True, dtype=torch.float32, **geometry):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, **{"kernel_size": 3, **geometry}, bias=bias).to(dtype)
    FoldedConv2d.take_over(conv, conv.weight.detach(), conv.bias.detach() if bias else None, relu)
    return conv.eval()


def problem(conv, dtype=torch.float32, batch=2):
    torch.manual_seed(1)
    x = torch.randn(batch, 8, 11, 14).to(dtype).contiguous(memory_format=torch.channels_last)
    residual = torch.randn_like(conv.functional(x)).contiguous(memory_format=torch.channels_last)
    return x, residual


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("way", ["plain", "onednn"])
def test_every_way_gives_the_same(way, geometry, relu, bias, dtype):
    conv = folded(relu, bias, dtype, **geometry)
    x, residual = problem(conv, dtype)
    if way == "onednn" and not onednn.takes(conv, x, None):
        pytest.skip("this torch or processor has no such operators")
    run = strategies.plain if way == "plain" else onednn.run
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    exact = F.conv2d(
        x.double(), conv.weight.double(), conv.bias.double() if bias else None, conv.stride, conv.padding,
        conv.dilation, conv.groups,
    )  # fmt: skip
    for summand in (None, residual):
        if way == "onednn" and not onednn.takes(conv, x, summand):
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


def timer(seconds):
    """Seconds by the value that a call returns; an exception in a call goes on."""
    asked = []

    def measure(call):
        name = call()
        asked.append(name)
        return seconds[name]

    return measure, asked


def failing():
    raise RuntimeError("no engine")


def test_choice_is_the_fastest_and_kept():
    choice = FastestChoice()
    measure, asked = timer({"plain": 2.0, "fused": 1.0})
    calls = {"plain": lambda: "plain", "fused": lambda: "fused"}
    assert [choice.choose("shape", calls, measure) for _ in range(3)] == ["fused"] * 3
    assert asked == ["plain", "fused"]
    measure, asked = timer({"plain": 1.0, "fused": 2.0})
    assert choice.choose("other", calls, measure) == "plain"


def test_choice_without_a_call_that_fails():
    choice = FastestChoice()
    measure, _ = timer({"plain": 2.0})
    assert choice.choose("shape", {"plain": lambda: "plain", "fused": failing}, measure) == "plain"
    with pytest.raises(RuntimeError, match="no engine"):
        FastestChoice().choose("shape", {"plain": failing, "fused": lambda: "fused"}, measure)


def test_choice_times_no_more_than_so_many_shapes():
    choice = FastestChoice()
    measure, asked = timer({"plain": 2.0, "fused": 1.0})
    calls = {"plain": lambda: "plain", "fused": lambda: "fused"}
    assert {choice.choose(shape, calls, measure) for shape in range(3 * MOST_TIMED)} == {"fused"}
    assert len(asked) == 2 * MOST_TIMED
    assert len(choice.chosen) == MOST_TIMED
    assert choice.choose("a shape with a residual", {"plain": calls["plain"]}, measure) == "plain"
    choice.chosen["shape"] = "plain"
    calls = {"plain": lambda: "plain", "another": lambda: "another"}
    assert choice.choose("a shape that has no way as most do", calls, measure) == "plain"


class Fake:
    """What cuda.strategy_for looks at of a CUDA tensor, on a CPU."""

    def __init__(self, monkeypatch, capturing=False, seconds=None):
        self.timed = []

        def measure(call):
            self.timed.append(call.func)
            return (seconds or {strategies.plain: 3.0, cudnn.run: 2.0, addmm.run: 1.0})[call.func]

        monkeypatch.setattr(cuda, "seconds_on_gpu", measure)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        self.capturing = capturing


def test_cuda_times_each_once_and_never_while_a_graph_is_captured(monkeypatch):
    fake = Fake(monkeypatch, capturing=True)
    conv = folded()
    x, residual = problem(conv)
    assert cuda.strategy_for(conv, x, None, strategies.plain) is strategies.plain
    assert fake.timed == []
    fake.capturing = False
    assert cuda.strategy_for(conv, x, None, strategies.plain) is cudnn.run
    assert fake.timed == [strategies.plain, cudnn.run]
    fake.capturing = True
    assert cuda.strategy_for(conv, x, None, strategies.plain) is cudnn.run  # what was chosen before
    assert cuda.strategy_for(conv, x, residual, strategies.plain) is strategies.plain  # another key
    assert len(fake.timed) == 2


def test_cuda_has_one_way_without_relu_or_bias_or_in_float64(monkeypatch):
    fake = Fake(monkeypatch)
    for conv in (folded(relu=False), folded(bias=False), folded(dtype=torch.float64)):
        x, _ = problem(conv, conv.weight.dtype)
        assert cuda.strategy_for(conv, x, None, strategies.plain) is strategies.plain
    with torch.backends.cudnn.flags(enabled=False):
        conv = folded()
        assert cuda.strategy_for(conv, problem(conv)[0], None, strategies.plain) is strategies.plain
    assert fake.timed == []


def test_cuda_takes_a_product_for_a_1x1_convolution_in_16_bits(monkeypatch):
    fake = Fake(monkeypatch)
    for relu, ways in ((True, [strategies.plain, cudnn.run, addmm.run]), (False, [strategies.plain, addmm.run])):
        conv = folded(relu=relu, kernel_size=1, dtype=torch.bfloat16)
        x, residual = problem(conv, torch.bfloat16)
        assert cuda.strategy_for(conv, x, None, strategies.plain) is addmm.run
        assert fake.timed == ways
        assert cuda.strategy_for(conv, x, residual, strategies.plain) is not addmm.run
        with torch.backends.cudnn.flags(enabled=False):  # another set of ways: what was chosen may not be in it
            assert cuda.strategy_for(conv, x, None, strategies.plain) is addmm.run
        fake.timed.clear()
    others = [{"kernel_size": 3}, {"kernel_size": 1, "stride": 2}, {"kernel_size": 1, "padding": 1}]
    others += [{"kernel_size": 1, "groups": 4}, {"kernel_size": 1, "bias": False}]
    for other in others:
        conv = folded(dtype=torch.bfloat16, **other)
        assert not addmm.takes(conv, problem(conv, torch.bfloat16)[0], None), other
    conv = folded(kernel_size=1)
    x, _ = problem(conv)
    assert not addmm.takes(conv, x, None) and not addmm.takes(conv, x.bfloat16(), None)
    with torch.autocast("cpu", torch.bfloat16):
        assert addmm.takes(conv, x, None)
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        assert not addmm.takes(conv, x, None)


@torch.no_grad()
@pytest.mark.parametrize("size", [(2, 8, 11, 14), (1, 8, 1, 1), (3, 8, 1, 5)], ids=str)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_product_is_the_convolution(autocast, relu, size):
    conv = folded(relu, kernel_size=1, dtype=torch.float32 if autocast else torch.bfloat16)
    x = torch.randn(size).to(conv.weight.dtype).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, autocast):
        found = addmm.run(conv, x, None, False)
        again = addmm.run(conv, x, None, False)
    rounded = (it.bfloat16().double() for it in (x, conv.weight, conv.bias))
    expected = F.conv2d(*rounded)
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, again)


@pytest.mark.cuda
@torch.no_grad()
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cuda_product_is_the_convolution(dtype, relu):
    conv = folded(relu, kernel_size=1, dtype=dtype).cuda()
    x = problem(folded(kernel_size=1, dtype=dtype), dtype)[0].cuda()
    expected = conv.functional(x)
    torch.testing.assert_close(addmm.run(conv, x, None, False), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(conv(x), expected, rtol=2e-2, atol=2e-2)
    assert len(conv.packed.choice.chosen) == 1


@pytest.mark.cuda
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_ways_agree(dtype):
    conv = folded(padding=1, dtype=dtype).cuda()
    x, residual = problem(folded(padding=1, dtype=dtype), dtype)
    x, residual = x.cuda(), residual.cuda()
    for summand in (None, residual):
        expected = conv.functional(x, summand)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
        torch.testing.assert_close(strategies.plain(conv, x, summand, False), expected, **tolerance)
        try:
            torch.testing.assert_close(cudnn.run(conv, x, summand, False), expected, **tolerance)
        except RuntimeError as error:
            assert "engine" in str(error) or "CUDNN" in str(error)
        torch.testing.assert_close(conv(x, summand), expected, **tolerance)


@pytest.mark.cuda
@torch.no_grad()
def test_cuda_graph_after_a_warm_up():
    conv = folded(padding=1, dtype=torch.float16).cuda()
    x = problem(folded(padding=1, dtype=torch.float16), torch.float16)[0].cuda()
    expected = conv(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = conv(x)
    graph.replay()
    torch.testing.assert_close(found, expected)


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
    if onednn.takes(conv, x, None):
        assert strategies.strategy_for(conv, x, None) is not strategies.plain
    torch.testing.assert_close(conv(x), conv.functional(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("channels", [32, 128])
def test_other_channels_for_winograds_algorithm(channels):
    conv = nn.Conv2d(64, 64, 3, padding=1)
    FoldedConv2d.take_over(conv, conv.weight.detach(), conv.bias.detach(), True)
    with pytest.raises(RuntimeError, match=f"to have 64 channels, but got {channels} channels"):
        conv(torch.randn(1, channels, 56, 56))
