"""Activation checkpointing, and autograd's hooks on saved tensors: the gradients of a plain backward."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers.networks import assert_equal, cfg_built, gradients, loss_of, torchvision_style
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from resnet_cuda import use_backend
from resnet_cuda.resnet import Bottleneck

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


def run(network: nn.Module, x: torch.Tensor, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = loss_of(network(x))
    loss.backward()
    return {"loss": loss.detach(), **gradients(network)}


def checkpointed(network: nn.Module, unit: str, **options) -> nn.Module:
    """``network`` whose blocks or stages are run through torch.utils.checkpoint."""
    if unit == "block":
        parts = [module for module in network.modules() if isinstance(module, Bottleneck)]
    else:
        parts = [network.body.get_submodule(f"layer{stage}") for stage in range(1, 5)]
    assert len(parts) == (16 if unit == "block" else 4)
    for part in parts:
        part.forward = functools.partial(checkpoint, part.forward, **options)
    return network


@pytest.fixture(params=[torchvision_style, cfg_built], ids=["torchvision", "cfg"])
def make(request):
    return request.param


@pytest.fixture
def x():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)).requires_grad_()


def assert_near(got, expected, bound):
    """Of each tensor's largest value."""
    assert got.keys() == expected.keys()
    for name, right in expected.items():
        assert (got[name] - right).abs().max() <= bound * right.abs().max(), name


def compare(make, x, unit, reentrant, autocast):
    expected = run(make(), x, AUTOCAST[autocast])
    got = run(checkpointed(make(), unit, use_reentrant=reentrant), x, AUTOCAST[autocast])
    if reentrant:
        # A part's gradients reach its input together, so that sums of two are made in another order.
        assert_near(got, expected, 1e-5 if autocast == "float32" else 2e-2)
    else:
        assert_equal(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("autocast", list(AUTOCAST))
@pytest.mark.parametrize("reentrant", [False, True], ids=["not_reentrant", "reentrant"])
@pytest.mark.parametrize("unit", ["block", "stage"])
def test_checkpointed_gradients_equal_plain_ones(unit, reentrant, autocast, x, native):
    compare(torchvision_style, x, unit, reentrant, autocast)


@pytest.mark.parametrize("unit", ["block", "stage"])
def test_checkpointed_gradients_of_a_cfg_built_network(unit, x, native):
    compare(cfg_built, x, unit, False, "float32")


@pytest.mark.parametrize("reentrant", [False, True], ids=["not_reentrant", "reentrant"])
def test_checkpointed_gradients_on_the_reference(reentrant, x):
    with use_backend("reference"):
        compare(torchvision_style, x, "block", reentrant, "float32")


def save_convolutions(context, operator, *arguments, **keywords):
    saved = torch.ops.aten.convolution.default, torch.ops.resnet_cuda.deform_conv2d.default
    return CheckpointPolicy.MUST_SAVE if operator in saved else CheckpointPolicy.PREFER_RECOMPUTE


def save_everything(context, operator, *arguments, **keywords):
    return CheckpointPolicy.MUST_SAVE


def save_our_operators(context, operator, *arguments, **keywords):
    ours = operator.namespace == "resnet_cuda"
    return CheckpointPolicy.MUST_SAVE if ours else CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.parametrize("policy", [save_convolutions, save_everything, save_our_operators])
@pytest.mark.parametrize("unit", ["block", "stage"])
def test_results_that_a_policy_saves_are_not_overwritten(unit, policy, x, native):
    """A result that a policy keeps must not be overwritten by the norm behind it."""
    make = torchvision_style
    expected = run(make(), x)
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    got = run(checkpointed(make(), unit, use_reentrant=False, context_fn=contexts), x)
    # Under a dispatch mode a norm's scale and shift are made by torch's operations, whose last bit may differ.
    assert_near(got, expected, 1e-4)


@pytest.mark.parametrize(
    "hooks",
    [
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda it: it.clone(), lambda it: it.clone()),
        torch.autograd.graph.save_on_cpu,
    ],
    ids=["clones", "save_on_cpu"],
)
def test_saved_tensors_hooks_change_no_gradient(hooks, make, x, native):
    expected = run(make(), x)
    with hooks():
        got = run(make(), x)
    assert_equal(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("unit", ["block", "stage"])
def test_a_gradient_penalty_through_a_checkpoint(unit, x, native):
    """Second derivatives of what is recomputed; the mode without re-entrance allows them."""

    def penalty(network):
        (first,) = torch.autograd.grad(loss_of(network(x)), x, create_graph=True)
        (first**2).sum().backward()
        return gradients(network)

    expected = penalty(torchvision_style())
    got = penalty(checkpointed(torchvision_style(), unit, use_reentrant=False))
    assert_equal(got, expected)
