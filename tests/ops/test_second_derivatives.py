"""Second derivatives of the compiled operators: those of the reference, however they are asked for."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.problems import gradcheck, smooth_leaves

from resnet_cuda import ops, reference
from resnet_cuda.layers import FrozenBatchNorm2d


def small_deform_leaves():
    leaves = {
        "input": torch.randn(1, 2, 3, 3),
        "offset": torch.rand(1, 8, 2, 2) * 0.5 + 0.25,
        "weight": torch.randn(2, 2, 2, 2),
        "bias": torch.randn(2),
        "mask": torch.rand(1, 4, 2, 2),
    }
    return {key: value.double().requires_grad_() for key, value in leaves.items()}


def registered_deform(input, offset, weight, bias=None, mask=None, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    return torch.ops.resnet_cuda.deform_conv2d(input, weight, offset, mask, bias, *stride, *padding, *dilation)


@pytest.mark.parametrize("function", [ops.deform_conv2d, registered_deform])
def test_gradgradcheck_of_deform_conv2d(function, native):
    assert gradcheck(function, small_deform_leaves(), torch.autograd.gradgradcheck)


NORM_OPERATORS = ("function", "in place", "layer", "registered", "registered layer")


def norm_operators():
    scale, shift = torch.tensor([1.5, -0.5, 0.25]).double(), torch.tensor([0.3, 0.1, -0.2]).double()
    layer = FrozenBatchNorm2d(3).double()
    layer.weight.copy_(scale)
    layer.bias.copy_(shift)
    layer.running_mean.copy_(torch.tensor([0.5, -1, 2]))
    layer.running_var.copy_(torch.tensor([4, 0.25, 1]))
    buffers = tuple(layer.buffers())
    registered, registered_layer = torch.ops.resnet_cuda.frozen_bn_relu, torch.ops.resnet_cuda.frozen_batch_norm
    return {
        "function": lambda x, r, relu: ops.frozen_bn_relu(x, scale, shift, r, relu),
        "in place": lambda x, r, relu: ops.frozen_bn_relu(x * 1, scale, shift, r, relu, inplace=True),
        "layer": lambda x, r, relu: layer(x, r, relu),
        "registered": lambda x, r, relu: registered(x, scale, shift, r, relu),
        "registered layer": lambda x, r, relu: registered_layer(x, *buffers, 1e-5, r, relu, True)[0],
    }


@pytest.mark.parametrize("relu", [False, True], ids=["affine", "relu"])
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("name", NORM_OPERATORS)
def test_gradcheck_and_gradgradcheck_of_frozen_bn_relu(name, residual, relu, native):
    function = norm_operators()[name]
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    r = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True) if residual else None
    # Squared, so that the incoming gradient depends on the input, too.
    assert torch.autograd.gradcheck(lambda *leaves: function(*leaves, relu), (x, r))
    assert torch.autograd.gradgradcheck(lambda *leaves: function(*leaves, relu) ** 2, (x, r))


def second(function, leaves, how):
    """The gradient of a gradient penalty for every leaf, asked for in one of several ways."""
    values = list(leaves.values())
    output = function(leaves)
    first = torch.autograd.grad((output**2).sum(), values, create_graph=True)
    penalty = sum((gradient**2).sum() for gradient in first)
    if how == "grad(inputs)":
        return torch.autograd.grad(penalty, values)
    if how == "product with a vector":
        vectors = [torch.full_like(value, 0.5) for value in values]
        return torch.autograd.grad(first, values, vectors)
    if how == "backward(inputs)":
        penalty.backward(inputs=values)
    elif how == "backward":
        penalty.backward()
    got = [value.grad for value in values]
    for value in values:
        value.grad = None
    return got


@pytest.mark.parametrize("how", ["grad(inputs)", "product with a vector", "backward(inputs)", "backward"])
@pytest.mark.parametrize("name", ["plain", "v1_no_bias", "groups_2_offset_groups_4", "stride_2x3"])
def test_deform_conv2d_equals_the_reference(name, how, device, native):
    case = DEFORM_CASES_BY_NAME[name]
    leaves = smooth_leaves(case, device)
    got = second(lambda given: ops.deform_conv2d(**given, **case.geometry), leaves, how)
    expected = second(lambda given: reference.deform_conv2d(**given, **case.geometry), leaves, how)
    assert all(gradient.any() for gradient in expected)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("wanted", ["input", "offset", "weight", "mask", "bias"])
def test_second_derivative_of_a_single_argument(wanted, native):
    """What is not asked for needs no derivative, and the one that is gets the same number."""
    everything = small_deform_leaves()

    def run(function):
        leaves = {key: value.detach().requires_grad_(key == wanted) for key, value in everything.items()}
        (first,) = torch.autograd.grad((function(**leaves) ** 3).sum(), leaves[wanted], create_graph=True)
        return torch.autograd.grad((first**2).sum(), leaves[wanted])[0]

    expected = run(reference.deform_conv2d)
    assert expected.any()
    torch.testing.assert_close(run(ops.deform_conv2d), expected)


def test_third_derivatives(native):
    def run(function):
        leaves = small_deform_leaves()
        value = (function(**leaves) ** 4).sum()
        for _ in range(3):
            gradients = torch.autograd.grad(value, list(leaves.values()), create_graph=True)
            value = sum((gradient**2).sum() for gradient in gradients)
        return value

    torch.manual_seed(3)
    expected = run(reference.deform_conv2d)
    torch.manual_seed(3)
    torch.testing.assert_close(run(ops.deform_conv2d), expected)


def test_a_piecewise_linear_function_has_zeros_and_no_error(backend):
    """As torch's own ReLU has: a penalty on the gradient of such a network alone is legal."""
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    output = ops.frozen_bn_relu(x, torch.ones(3), torch.zeros(3))
    (first,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    (zeros,) = torch.autograd.grad((first**2).sum(), x)
    assert zeros.shape == x.shape
    assert not zeros.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_second_derivatives_in_16_bit(dtype, native):
    leaves = {key: value.detach().to(dtype).requires_grad_() for key, value in small_deform_leaves().items()}
    got = second(lambda given: ops.deform_conv2d(**given), leaves, "grad(inputs)")
    exact = {key: value.detach().double().requires_grad_() for key, value in leaves.items()}
    expected = second(lambda given: reference.deform_conv2d(**given), exact, "grad(inputs)")
    for one, right in zip(got, expected, strict=True):
        assert one.dtype == dtype
        bound = 0.02 if dtype == torch.float16 else 0.15
        assert (one.double() - right).abs().max() <= bound * right.abs().max()
