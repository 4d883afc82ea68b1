"""Winograd's convolution compiled, on meta, mapped, under autocast and with gradients; where it pays."""

from __future__ import annotations

import pytest
import torch
from helpers.winograd_problems import assert_close, problem

import resnet_cuda
from resnet_cuda import _extension
from resnet_cuda.inference.winograd import winograd_pays, winograd_usable
from resnet_cuda.ops.conv2d_winograd import conv2d_winograd


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_graph_breaks(dynamic, backend):
    arguments, expected = problem(1, 6, 40, 9, 7)
    constants = {name: arguments[name] for name in ("weight", "bias")}

    def network(x, residual):
        return conv2d_winograd(x * 1, constants["weight"], 40, constants["bias"], residual, True) + 0

    with torch.no_grad():
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=dynamic)
        assert_close(compiled(arguments["input"], arguments["residual"]), expected)
        other, expected = problem(1, 6, 40, 12, 5)
        other |= constants
        assert torch.equal(compiled(other["input"], other["residual"]), conv2d_winograd(**other))


def test_on_meta_and_mapped(backend):
    arguments, expected = problem(2, 6, 8, 9, 7, residual=False)
    meta = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
    result = conv2d_winograd(**meta)
    assert result.is_meta
    assert result.stride() == conv2d_winograd(**arguments).stride()
    constants = {name: value for name, value in arguments.items() if name != "input"}
    mapped = torch.vmap(lambda x: conv2d_winograd(x, **constants))(arguments["input"][:, None])
    assert_close(mapped[:, 0], expected)


def test_autocast_does_not_cast(backend):
    arguments, expected = problem(1, 6, 8, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(conv2d_winograd(**arguments), expected)


@pytest.mark.parametrize("name", ["input", "weight", "bias", "residual"])
def test_without_derivative(name, backend):
    arguments, expected = problem(1, 6, 8, 9, 7)
    arguments[name] = arguments[name].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="conv2d_winograd has no derivative; call it in torch.no_grad"):
        conv2d_winograd(**arguments)
    with torch.no_grad():
        assert_close(conv2d_winograd(**arguments), expected)
    if resnet_cuda.backend() == "native":
        positional = (*list(arguments.values())[:-1], 1, 1)
        with pytest.raises(RuntimeError, match=r"resnet_cuda\.conv2d_winograd has no derivative"):
            torch.ops.resnet_cuda.conv2d_winograd(*positional)


def test_flops_are_those_of_the_direct_convolution(native):
    from torch.utils.flop_counter import FlopCounterMode

    arguments, _ = problem(2, 6, 8, 9, 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        conv2d_winograd(**arguments)
    assert counter.get_total_flops() == 2 * (2 * 9 * 7) * 8 * 6 * 9


@pytest.mark.parametrize(
    ("sizes", "pays"),
    [
        ((256, 256, 120, 160), True),
        ((512, 512, 15, 20), True),
        ((256, 256, 8, 10), True),
        ((64, 64, 4, 5), False),
        ((256, 256, 1, 1), False),
        ((256, 256, 1, 4000), False),  # a quarter of each tile
        ((3, 64, 480, 640), False),
        ((256, 3, 120, 160), False),
        ((512, 512, 15, 20, 8), True),
        ((512, 512, 15, 20, 64), False),
        ((256, 256, 14, 14), True),
        ((256, 256, 14, 14, 2, torch.bfloat16), False),
        ((512, 512, 15, 20, 2, torch.bfloat16), True),
    ],
    ids=str,
)
def test_where_it_pays(sizes, pays):
    assert winograd_pays(*sizes) is pays


def test_where_it_is_usable(monkeypatch, backend):
    fast = backend == "native" and _extension.cpu_capability() != "portable"
    assert winograd_usable(torch.float32) is fast
    assert not winograd_usable(torch.float64)
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert winograd_usable(torch.bfloat16) is (fast and not amx)
    monkeypatch.setattr(_extension, "cpu_capability", lambda: "portable")
    assert not winograd_usable(torch.float32)
