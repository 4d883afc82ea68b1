"""Frozen norms made of trainable ones and the other way: values, sharing, modes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import assert_equal, frozen_norms, gradients, levels_of, loss_of, narrow_fpn, randomise
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d

BUFFERS = ("weight", "bias", "running_mean", "running_var")
freeze = FrozenBatchNorm2d.convert_frozen_batchnorm
thaw = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d
DIRECTIONS = {"freeze": (freeze, nn.BatchNorm2d), "thaw": (thaw, FrozenBatchNorm2d)}


@pytest.fixture(params=DIRECTIONS)
def direction(request):
    """A converter and the class that it replaces."""
    return DIRECTIONS[request.param]


def norm(kind, channels=4, eps=1e-3):
    return randomise(kind(channels, eps=eps))


def same_values(one, other):
    for name in BUFFERS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name) is not getattr(other, name)


def test_the_way_back(backend):
    """Of a whole backbone: the same function in evaluation mode, batch statistics in training mode."""
    network = randomise(narrow_fpn(trainable_layers=3, fpn_norm_layer="frozen_bn")).double()
    modes = {name: layer.training for name, layer in network.named_modules()}
    x = torch.randn(2, 3, 64, 50, dtype=torch.float64)
    old = frozen_norms(network)
    expected = network.eval()(x)
    state = network.state_dict()
    frozen_parameters = [name for name, it in network.named_parameters() if not it.requires_grad]
    assert frozen_parameters
    network.train()
    assert thaw(network) is network
    assert modes == {name: layer.training for name, layer in network.named_modules()}
    new = {name: layer for name, layer in network.named_modules() if type(layer) is nn.BatchNorm2d}
    assert new.keys() == old.keys()
    assert not frozen_norms(network)
    for name, layer in new.items():
        same_values(layer, old[name])
        assert (layer.eps, layer.momentum, layer.num_features) == (old[name].eps, 0.1, old[name].num_features)
        assert layer.num_batches_tracked == 0
        assert layer.weight.requires_grad
        assert layer.bias.requires_grad
        assert layer.weight.dtype == torch.float64
    assert [name for name, it in network.named_parameters() if not it.requires_grad] == frozen_parameters
    after = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert list(after) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in after.items())
    assert_equal(dict(network.eval()(x)), dict(expected))
    # In training mode: torch's own layers one after the other.
    network.train()
    assert not torch.allclose(network(x)["0"], expected["0"])
    assert new["body.bn1"].num_batches_tracked == 1
    loss_of(network(x)).backward()
    assert {name for name, _ in network.named_parameters()} - set(frozen_parameters) == set(gradients(network))
    # And back: as it is now.
    expected = network.eval()(x)
    freeze(network)
    assert len(frozen_norms(network)) == len(old)
    assert_equal(dict(network(x)), dict(expected))


def test_training_equals_a_network_built_with_batch_norm(backend):
    """What is trained after the conversion, is what norm_layer="bn" trains."""
    network = thaw(randomise(narrow_fpn(trainable_layers=5)).double())
    other = narrow_fpn(trainable_layers=5, norm_layer="bn").double()
    other.load_state_dict(network.state_dict())
    for layer in other.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked.zero_()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    outputs = [it.train()(x) for it in (network, other)]
    assert_equal(dict(outputs[0]), dict(outputs[1]))
    for output in outputs:
        loss_of(output).backward()
    assert_equal(gradients(network), gradients(other))
    assert_equal(network.state_dict(), other.state_dict())


def test_sync_batch_norm_is_made_of_it():
    network = randomise(narrow_fpn(fpn_norm_layer="frozen_bn"))
    x = torch.randn(1, 3, 64, 64)
    expected = network.eval()(x)
    state = network.state_dict()
    network = nn.SyncBatchNorm.convert_sync_batchnorm(thaw(network))
    kinds = [type(layer) for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert set(kinds) == {nn.SyncBatchNorm}
    assert len(kinds) == 28
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    for one, other in zip(levels_of(network(x)), levels_of(expected), strict=True):
        torch.testing.assert_close(one, other)
    freeze(network)
    for one, other in zip(levels_of(network(x)), levels_of(expected), strict=True):
        torch.testing.assert_close(one, other)


def test_a_norm_by_itself(direction):
    convert, kind = direction
    layer = norm(kind).eval()
    other = convert(layer)
    assert other is not layer
    assert isinstance(other, FrozenBatchNorm2d if convert is freeze else nn.BatchNorm2d)
    assert not other.training
    same_values(layer, other)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(other(x), layer(x))
    with torch.no_grad():
        layer.weight.add_(1)  # no memory in common
    assert not torch.equal(layer.weight, other.weight)


def test_what_is_shared_stays_shared(direction):
    """A norm under two names, and a tensor in two norms."""
    convert, kind = direction
    first, second = norm(kind), norm(kind)
    second.bias = first.bias
    second.running_mean = first.running_mean
    network = nn.ModuleDict({"a": first, "b": nn.Sequential(first, second), "c": first})
    convert(network)
    assert network["a"] is network["b"][0] is network["c"]
    assert type(network["a"]) is not kind
    assert network["a"].bias is network["b"][1].bias
    assert network["a"].running_mean is network["b"][1].running_mean
    assert network["a"].weight is not network["b"][1].weight
    for name in BUFFERS:
        assert torch.equal(getattr(network["a"], name), getattr(first, name))


def test_nothing_to_convert(direction):
    convert, kind = direction
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.GroupNorm(1, 1)), nn.Identity())
    parts = list(network.modules())
    assert convert(network) is network
    assert list(network.modules()) == parts
    already = convert(norm(kind))
    assert convert(already) is already


@pytest.mark.parametrize("training", [False, True])
def test_each_layers_mode_is_kept(direction, training):
    convert, kind = direction
    network = nn.Sequential(norm(kind), norm(kind))
    network[1].train(training)
    network[0].train(not training)
    convert(network)
    assert [layer.training for layer in network] == [not training, training]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype):
    layer = norm(nn.BatchNorm2d).to(dtype)
    frozen = freeze(layer)
    wide = torch.float64 if dtype == torch.float64 else torch.float32  # a frozen layer's own rule
    for name in BUFFERS:
        assert getattr(frozen, name).dtype == wide
        assert torch.equal(getattr(frozen, name), getattr(layer, name).to(wide))
    again = thaw(frozen)
    assert {getattr(again, name).dtype for name in BUFFERS} == {wide}
    for name in BUFFERS:  # as a wrapper leaves them that casts buffers by itself
        setattr(frozen, name, getattr(frozen, name).to(dtype))
    assert {getattr(thaw(frozen), name).dtype for name in BUFFERS} == {dtype}


def test_devices(direction, device):
    convert, kind = direction
    for where in (device, torch.device("meta")):
        converted = convert(nn.Sequential(norm(kind).to(where)))
        assert {it.device.type for it in (*converted.parameters(), *converted.buffers())} == {where.type}


def test_a_norm_without_weights_freezes():
    layer = nn.BatchNorm2d(3, affine=False)
    layer(torch.randn(4, 3, 5, 5) * 2 + 1)
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(freeze(layer)(x), layer.eval()(x))


class WithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: converting it would lose its activation."""

    def forward(self, x):
        return super().forward(x).relu()


class FrozenWithActivation(FrozenBatchNorm2d):
    def forward(self, x, residual=None, relu=False, inplace=False):
        return super().forward(x, residual, True, inplace)


class Named(nn.BatchNorm2d):
    """A subclass that computes the same."""


def test_a_subclass_that_computes_the_same_is_frozen():
    assert type(freeze(nn.Sequential(norm(Named)))[0]) is FrozenBatchNorm2d


def spoil_hook(layer):
    layer.register_forward_hook(lambda *arguments: None)


def spoil_pre_hook(layer):
    layer.register_forward_pre_hook(lambda *arguments: None)


def spoil_backward_hook(layer):
    layer.register_full_backward_hook(lambda *arguments: None)


def spoil_state_dict_hook(layer):
    layer.register_state_dict_post_hook(lambda *arguments: None)


def spoil_load_hook(layer):
    layer.register_load_state_dict_pre_hook(lambda *arguments: None)


def spoil_forward(layer):
    layer.forward = lambda x: x


SPOILERS = [spoil_hook, spoil_pre_hook, spoil_backward_hook, spoil_state_dict_hook, spoil_load_hook, spoil_forward]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_hooks_are_refused_and_nothing_changes(direction, spoil):
    convert, kind = direction
    network = nn.ModuleDict({"first": norm(kind), "inner": nn.Sequential(norm(kind))})
    parts = list(network.modules())
    spoil(network["inner"][0])
    with pytest.raises(ValueError, match=r"layer inner.0 has hooks; remove them first"):
        convert(network)
    assert list(network.modules()) == parts
    with pytest.raises(ValueError, match=r"layer module has hooks"):
        convert(network["inner"][0])


def test_another_call_is_refused(direction):
    convert, kind = direction
    layer = norm(kind)
    layer.__class__ = type("Called", (type(layer),), {"__call__": lambda self, x: self.forward(x) * 2})
    with pytest.raises(ValueError, match=r"layer 0 has a __call__ of its own, which would be lost|Called"):
        convert(nn.Sequential(layer))


def test_hooks_elsewhere_stay(direction):
    convert, kind = direction
    network = nn.Sequential(nn.Conv2d(4, 4, 1), norm(kind))
    calls = []
    network.register_forward_hook(lambda *arguments: calls.append("network"))
    handle = nn.modules.module.register_module_forward_hook(lambda *arguments: calls.append("any"))
    try:
        convert(network)
        network(torch.randn(2, 4, 3, 3))
    finally:
        handle.remove()
    assert calls.count("network") == 1
    assert type(network[1]) is not kind


def test_parametrizations_are_refused():
    layer = norm(nn.BatchNorm2d)
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(ValueError, match="layer 0 has parametrizations; remove them first"):
        freeze(nn.Sequential(layer))


@pytest.mark.parametrize(
    ("convert", "layer", "message"),
    [
        (freeze, nn.BatchNorm2d(3, track_running_stats=False), "a BatchNorm without running statistics cannot"),
        (freeze, WithActivation(3), "WithActivation has a forward of its own; it cannot be frozen"),
        (thaw, FrozenWithActivation(3), "FrozenWithActivation has a forward of its own; it cannot be converted"),
    ],
    ids=str,
)
def test_what_cannot_be_converted_is_named_and_nothing_changes(convert, layer, message):
    network = nn.Sequential(nn.BatchNorm2d(2), FrozenBatchNorm2d(2), layer)
    parts = list(network.modules())
    with pytest.raises(ValueError, match=message):
        convert(network)
    assert list(network.modules()) == parts
