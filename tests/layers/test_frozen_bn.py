"""FrozenBatchNorm2d: values, dtypes, the kept constants, state dicts, conversion."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d, norm_act


def randomised(channels=5, eps=1e-5):
    layer = FrozenBatchNorm2d(channels, eps)
    for name in ("weight", "bias", "running_mean"):
        getattr(layer, name).normal_()
    layer.running_var.uniform_(0.1, 2)
    return layer


def definition(layer, x):
    """Batch normalisation in evaluation mode, by torch itself in float64."""
    mean, variance, weight, bias = (
        getattr(layer, name).double() for name in ("running_mean", "running_var", "weight", "bias")
    )
    # eps is added here: batch_norm of torch 2.10 and 2.11 refuses an eps of 0. The least one changes no bit of the sum.
    least = torch.finfo(torch.float64).tiny
    return torch.nn.functional.batch_norm(x.double(), mean, variance + layer.eps, weight, bias, eps=least)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-2])
def test_values(eps, backend):
    layer, x, residual = randomised(eps=eps), torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    expected = definition(layer, x)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    fused = layer(x, residual=residual, relu=True)
    torch.testing.assert_close(fused.double(), (expected + residual.double()).relu(), atol=1e-5, rtol=1e-5)
    assert layer(x, inplace=True) is x
    torch.testing.assert_close(x.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_activations_stay_so_and_constants_stay_float32(dtype, backend):
    layer, x = randomised(), torch.randn(1, 5, 3, 3).to(dtype)
    expected = definition(layer, x)
    layer = layer.to(dtype)
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.float32}
    output = layer(x)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype), atol=0, rtol=2 * torch.finfo(dtype).eps)
    assert {buffer.dtype for buffer in layer.double().buffers()} == {torch.float64}


def change_in_place(layer):
    layer.running_mean.add_(1)


def load(layer):
    layer.load_state_dict(randomised().state_dict())


def replace(layer):
    layer.weight = torch.full((5,), 3.0)


def through_data(layer):
    layer.bias.data.fill_(7)
    layer.eval()


@pytest.mark.parametrize("change", [change_in_place, load, replace, through_data])
def test_kept_constants_follow_the_buffers(change):
    layer, x = randomised(), torch.randn(1, 5, 3, 3)
    before = layer(x)
    assert layer.scale_and_shift()[0] is layer.scale_and_shift()[0]  # kept, not computed again
    change(layer)
    after = layer(x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.double(), definition(layer, x), atol=1e-5, rtol=1e-5)


def test_copies_have_constants_of_their_own():
    layer, x = randomised(), torch.randn(1, 5, 3, 3)
    expected = layer(x)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(x), expected)
        clone.bias.add_(1)
        torch.testing.assert_close(clone(x), expected + 1)
        assert torch.equal(layer(x), expected)


def test_inference_mode_leaves_nothing_behind():
    layer, x = randomised(), torch.randn(1, 5, 3, 3, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert x.grad.any()


def test_state_dict_of_a_batch_norm_loads():
    trained = nn.BatchNorm2d(5)
    trained(torch.randn(8, 5, 4, 4))
    layer = FrozenBatchNorm2d(5)
    layer.load_state_dict(trained.state_dict())  # strict: num_batches_tracked must not be in the way
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(layer(x), trained.eval()(x))


def test_conversion():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3), nn.Sequential(nn.BatchNorm2d(4, affine=False))
    )
    network(torch.randn(4, 3, 5, 5))
    x = torch.randn(1, 3, 5, 5)
    expected = network.eval()(x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(network)
    assert sum(isinstance(layer, FrozenBatchNorm2d) for layer in frozen.modules()) == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    torch.testing.assert_close(frozen.train()(x), expected)


def test_norm_act_of_an_ordinary_norm():
    norm, x, residual = nn.GroupNorm(2, 4), torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    before = x.clone()
    torch.testing.assert_close(norm_act(norm, x, residual), (norm(before) + residual).relu())
    assert torch.equal(x, before)
    torch.testing.assert_close(norm_act(norm, x, relu=False), norm(before))


def test_hooks_on_the_layer_run():
    layer, seen = randomised(), []
    layer.register_forward_hook(lambda module, arguments, output: seen.append(output))
    norm_act(layer, torch.randn(1, 5, 2, 2))
    assert len(seen) == 1
