"""First derivatives only: asking the compiled operators for second ones is a clear error and no wrong number."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.problems import deform_arguments

from resnet_cuda import ops, use_backend

CASE = DEFORM_CASES_BY_NAME["plain"]
CLEAR = r"once_differentiable|second derivative|twice"


def deform_leaves():
    arguments = deform_arguments(CASE, torch.float64)
    arguments.pop("grad")
    return {key: value.requires_grad_() for key, value in arguments.items()}


def test_deform_conv2d(registered):
    leaves = deform_leaves()
    output = ops.deform_conv2d(**leaves, **CASE.geometry)
    (gradient,) = torch.autograd.grad(output.square().sum(), leaves["input"], create_graph=True)
    with pytest.raises(RuntimeError, match=CLEAR):
        gradient.square().sum().backward()


def test_frozen_bn_relu(registered):
    leaf = torch.randn(1, 2, 3, 3, requires_grad=True)
    output = ops.frozen_bn_relu(leaf, torch.ones(2), torch.zeros(2))
    (gradient,) = torch.autograd.grad(output.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=CLEAR):
        gradient.square().sum().backward()


def test_registered_deform_conv2d(registered):
    leaves = deform_leaves()
    tensors = [leaves[key] for key in ("input", "weight", "offset", "mask", "bias")]
    output = torch.ops.resnet_cuda.deform_conv2d(*tensors, *CASE.stride, *CASE.padding, *CASE.dilation)
    (gradient,) = torch.autograd.grad(output.square().sum(), leaves["input"], create_graph=True)
    with pytest.raises(RuntimeError, match=CLEAR):
        gradient.square().sum().backward()


def test_registered_frozen_bn_relu(registered):
    leaf = torch.randn(1, 2, 3, 3, requires_grad=True)
    output = torch.ops.resnet_cuda.frozen_bn_relu(leaf, torch.ones(2), torch.zeros(2), None, True)
    (gradient,) = torch.autograd.grad(output.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=CLEAR):
        gradient.square().sum().backward()


def test_the_reference_has_them():
    """What the error sends its reader to."""
    leaves = deform_leaves()
    leaves = {key: value.detach()[:1] if key in ("input", "offset", "mask") else value for key, value in leaves.items()}
    leaves["offset"] = leaves["offset"].floor() + 0.3
    with use_backend("reference"):
        assert torch.autograd.gradgradcheck(
            lambda input, weight: ops.deform_conv2d(**(leaves | {"input": input, "weight": weight}), **CASE.geometry),
            (leaves["input"].requires_grad_(), leaves["weight"]),
            fast_mode=True,
        )
