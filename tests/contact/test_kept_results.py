"""A result that other code keeps is never overwritten by the norm behind it; where no code keeps it, it is."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import levels_of, randomise, torchvision_style
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d


@pytest.fixture
def x():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def keep(kept, result):
    kept.append((result, result.clone()))
    return result


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def a_wrapper(network, kept, monkeypatch):
    """As adapters and quantisers put around a convolution."""

    class Keeping(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return keep(kept, self.inner(x))

    replace(network, "body.layer1.0.conv3", Keeping(network.body.layer1[0].conv3))


def a_subclass(network, kept, monkeypatch):
    class Keeping(nn.Conv2d):
        def forward(self, x):
            return keep(kept, super().forward(x))

    replace(network, "body.layer1.1.conv1", Keeping(32, 8, 1, bias=False))


def one_forward(network, kept, monkeypatch):
    conv = network.body.layer1[1].conv3
    original = conv.forward
    conv.forward = lambda x: keep(kept, original(x))


def one_conv_forward(network, kept, monkeypatch):
    conv = network.body.layer1[0].conv1
    original = conv._conv_forward
    conv._conv_forward = lambda *arguments: keep(kept, original(*arguments))


def every_functional(network, kept, monkeypatch):
    original = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, "conv2d", lambda *a, **k: keep(kept, original(*a, **k)))


def every_forward(network, kept, monkeypatch):
    original = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: keep(kept, original(self, x)))


def every_call(network, kept, monkeypatch):
    original = nn.Module.__call__

    def call(self, *arguments, **keywords):
        result = original(self, *arguments, **keywords)
        return keep(kept, result) if isinstance(self, nn.Conv2d) else result

    monkeypatch.setattr(nn.Module, "__call__", call)


@pytest.mark.parametrize(
    "patch", [a_wrapper, a_subclass, one_forward, one_conv_forward, every_functional, every_forward, every_call]
)
def test_replaced_modules_and_functions_that_keep_results(patch, x, monkeypatch, backend):
    network, kept = torchvision_style(False), []
    patch(network, kept, monkeypatch)
    for gradient in (False, True):
        with torch.set_grad_enabled(gradient):
            network(x)
    assert len(kept) > 20 if "every" in patch.__name__ else len(kept) == 2
    for result, at_the_call in kept:
        assert torch.equal(result, at_the_call)


class Recorded(torch.Tensor):
    """As loggers and debuggers make them: each convolution's result is kept."""

    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        result = super().__torch_function__(function, types, arguments, keywords or {})
        if function is torch.nn.functional.conv2d or function is torch.conv2d:
            cls.kept.append((result, result.as_subclass(torch.Tensor).clone()))
        return result


def test_a_subclass_of_tensor_that_keeps_results(x, native):
    Recorded.kept.clear()
    with torch.no_grad():
        torchvision_style(False)(x.as_subclass(Recorded))
    assert len(Recorded.kept) > 10
    for result, at_the_call in Recorded.kept:
        assert torch.equal(result.as_subclass(torch.Tensor), at_the_call)


def test_identity_for_a_convolution_does_not_overwrite_the_input(x, backend):
    """Its result is its input, which the block still needs."""
    network = torchvision_style(False)
    replace(network, "body.layer1.1.conv1", nn.Identity())
    replace(network, "body.layer1.1.bn1", FrozenBatchNorm2d(32))
    replace(network, "body.layer1.1.conv2", nn.Conv2d(32, 8, 3, padding=1, bias=False))
    randomise(network)
    inputs = []
    network.body.layer1[0].register_forward_hook(lambda m, a, output: inputs.extend((output, output.clone())))
    network(x)
    assert torch.equal(*inputs)


def test_a_shortcut_of_other_modules_is_called(x, backend):
    """As in ResNet-D: three modules, of which the block knows nothing."""
    network = torchvision_style(False)
    conv, norm = network.body.layer2[0].downsample
    expected = levels_of(network(x))
    conv.stride = (1, 1)
    replace(network, "body.layer2.0.downsample", nn.Sequential(nn.MaxPool2d(1, 2), conv, norm))
    torch.testing.assert_close(levels_of(network(x)), expected)


def test_every_norm_works_in_place_where_nothing_is_kept(x, native, monkeypatch):
    """What the rules above are for: a block then allocates one activation per convolution and no more."""
    in_place, original = [], FrozenBatchNorm2d.forward

    def record(self, x, residual=None, relu=False, inplace=False):
        in_place.append(inplace)
        return original(self, x, residual, relu, inplace)

    network = torchvision_style(False)
    monkeypatch.setattr(FrozenBatchNorm2d, "forward", record)
    with torch.device("cpu"):  # a mode that only says where tensors are made
        network(x)
    assert in_place == [True] * 53
