"""The ways to run a folded convolution on a GPU, and the choice of the fastest."""

from __future__ import annotations

import contextlib
import time

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_convolutions import folded, problem
from helpers.threads import in_threads

from resnet_cuda.inference import cublaslt, cuda, cudnn, strategies
from resnet_cuda.inference.autotune import MOST_TIMED, Autotuner


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


def test_the_fastest_call_is_chosen_and_kept():
    autotuner = Autotuner()
    measure, asked = timer({"plain": 2.0, "fused": 1.0})
    calls = {"plain": lambda: "plain", "fused": lambda: "fused"}
    assert [autotuner.choose("shape", calls, measure) for _ in range(3)] == ["fused"] * 3
    assert asked == ["plain", "fused"]
    measure, asked = timer({"plain": 1.0, "fused": 2.0})
    assert autotuner.choose("other", calls, measure) == "plain"


def test_a_call_that_fails_is_not_chosen():
    autotuner = Autotuner()
    measure, _ = timer({"plain": 2.0})
    assert autotuner.choose("shape", {"plain": lambda: "plain", "fused": failing}, measure) == "plain"
    with pytest.raises(RuntimeError, match="no engine"):
        Autotuner().choose("shape", {"plain": failing, "fused": lambda: "fused"}, measure)


def test_the_autotuner_times_no_more_than_so_many_shapes():
    autotuner = Autotuner()
    measure, asked = timer({"plain": 2.0, "fused": 1.0})
    calls = {"plain": lambda: "plain", "fused": lambda: "fused"}
    assert {autotuner.choose(shape, calls, measure) for shape in range(3 * MOST_TIMED)} == {"fused"}
    assert len(asked) == 2 * MOST_TIMED
    assert len(autotuner.chosen) == MOST_TIMED
    assert autotuner.choose("a shape with a residual", {"plain": calls["plain"]}, measure) == "plain"
    autotuner.chosen["shape"] = "plain"
    calls = {"plain": lambda: "plain", "another": lambda: "another"}
    assert autotuner.choose("a shape that has no way as most do", calls, measure) == "plain"


def test_threads_time_a_shape_once_and_one_after_the_other():
    autotuner, running, most = Autotuner(), [], []

    def measure(call):
        running.append(call)
        most.append(len(running))
        time.sleep(1e-3)
        running.remove(call)
        return {"plain": 2.0, "fused": 1.0}[call()]

    def choose(number):
        calls = {"plain": lambda: "plain", "fused": lambda: "fused"}
        return {autotuner.choose(shape, calls, measure) for shape in range(2 * MOST_TIMED)}

    assert in_threads(8, choose) == [{"fused"}] * 8
    assert len(most) == 2 * MOST_TIMED
    assert max(most) == 1


class Fake:
    """What cuda.strategy_for looks at of a CUDA tensor, on a CPU."""

    def __init__(self, monkeypatch, capturing=False, seconds=None):
        self.timed = []

        def measure(call):
            self.timed.append(call.func)
            return (seconds or {strategies.plain: 3.0, cudnn.run: 2.0, cublaslt.run: 1.0})[call.func]

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
    for relu, ways in ((True, [strategies.plain, cudnn.run, cublaslt.run]), (False, [strategies.plain, cublaslt.run])):
        conv = folded(relu=relu, kernel_size=1, dtype=torch.bfloat16)
        x, residual = problem(conv, torch.bfloat16)
        assert cuda.strategy_for(conv, x, None, strategies.plain) is cublaslt.run
        assert fake.timed == ways
        assert cuda.strategy_for(conv, x, residual, strategies.plain) is not cublaslt.run
        with torch.backends.cudnn.flags(enabled=False):  # another set of ways: what was chosen may not be in it
            assert cuda.strategy_for(conv, x, None, strategies.plain) is cublaslt.run
        fake.timed.clear()
    others = [{"kernel_size": 3}, {"kernel_size": 1, "stride": 2}, {"kernel_size": 1, "padding": 1}]
    others += [{"kernel_size": 1, "groups": 4}, {"kernel_size": 1, "bias": False}]
    for other in others:
        conv = folded(dtype=torch.bfloat16, **other)
        assert not cublaslt.takes(conv, problem(conv, torch.bfloat16)[0], None), other
    conv = folded(kernel_size=1)
    x, _ = problem(conv)
    assert not cublaslt.takes(conv, x, None) and not cublaslt.takes(conv, x.bfloat16(), None)
    with torch.autocast("cpu", torch.bfloat16):
        assert cublaslt.takes(conv, x, None)
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        assert not cublaslt.takes(conv, x, None)


@torch.no_grad()
@pytest.mark.parametrize("size", [(2, 8, 11, 14), (1, 8, 1, 1), (3, 8, 1, 5)], ids=str)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_product_is_the_convolution(autocast, relu, size):
    conv = folded(relu, kernel_size=1, dtype=torch.float32 if autocast else torch.bfloat16)
    x = torch.randn(size).to(conv.weight.dtype).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, autocast):
        found = cublaslt.run(conv, x, None, False)
        again = cublaslt.run(conv, x, None, False)
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
    torch.testing.assert_close(cublaslt.run(conv, x, None, False), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(conv(x), expected, rtol=2e-2, atol=2e-2)
    assert len(conv.packed.autotuner.chosen) == 1


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
