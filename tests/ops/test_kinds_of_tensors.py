"""Tensors that are not dense, constants that require a gradient, flags of other types: errors name the argument."""

from __future__ import annotations

import pytest
import torch

from resnet_cuda import ops, reference
from resnet_cuda.layers import FrozenBatchNorm2d

# torch says that some of these kinds are prototypes.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:.*quantiz")

KINDS = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
    "mkldnn": lambda tensor: tensor.to_mkldnn(),
}
NORM = {
    "input": torch.randn(2, 3, 4, 5),
    "scale": torch.rand(3),
    "shift": torch.rand(3),
    "residual": torch.randn(2, 3, 4, 5),
}
DEFORM = {
    "input": torch.randn(1, 2, 4, 4),
    "offset": torch.zeros(1, 18, 2, 2),
    "weight": torch.randn(2, 2, 3, 3),
    "bias": torch.randn(2),
    "mask": torch.rand(1, 9, 2, 2),
}


def cases(arguments):
    return [pytest.param(name, kind, id=f"{kind} {name}") for name in arguments for kind in KINDS]


def assert_named(operator, name, call):
    with pytest.raises(ValueError, match=rf"^{operator}: {name} is .*; it must be a dense tensor"):
        call()


@pytest.mark.parametrize("gradient", [False, True], ids=["inference", "gradient"])
@pytest.mark.parametrize(("name", "kind"), cases(NORM))
def test_frozen_bn_relu_names_a_tensor_that_is_not_dense(name, kind, gradient, backend):
    arguments = NORM | {name: KINDS[kind](NORM[name])}
    if gradient:
        other = "input" if name != "input" else "residual"
        arguments[other] = arguments[other].clone().requires_grad_()
    assert_named("frozen_bn_relu", name, lambda: ops.frozen_bn_relu(**arguments))
    assert_named("frozen_bn_relu", name, lambda: reference.frozen_bn_relu(**arguments))


@pytest.mark.parametrize(("name", "kind"), cases(DEFORM))
def test_deform_conv2d_names_a_tensor_that_is_not_dense(name, kind, backend):
    arguments = DEFORM | {name: KINDS[kind](DEFORM[name])}
    assert_named("deform_conv2d", name, lambda: ops.deform_conv2d(**arguments))
    assert_named("deform_conv2d", name, lambda: reference.deform_conv2d(**arguments))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_layer_names_a_tensor_that_is_not_dense(kind, backend):
    layer = FrozenBatchNorm2d(3)
    assert_named("frozen_batch_norm", "input", lambda: layer(KINDS[kind](NORM["input"])))
    layer.running_var = KINDS[kind](layer.running_var)
    assert_named("frozen_batch_norm", "running_var", lambda: layer(NORM["input"]))


@pytest.mark.parametrize("input_too", [False, True])
@pytest.mark.parametrize("name", ["scale", "shift"])
def test_constants_that_require_a_gradient_are_refused(name, input_too, backend):
    arguments = NORM | {name: NORM[name].clone().requires_grad_()}
    if input_too:
        arguments["input"] = arguments["input"].clone().requires_grad_()
    match = rf"frozen_bn_relu: {name} is a tensor that requires a gradient; it must be a constant"
    for function in (ops.frozen_bn_relu, reference.frozen_bn_relu):
        with pytest.raises(ValueError, match=match):
            function(**arguments)
        with torch.no_grad():
            assert torch.equal(function(**arguments), function(**NORM))


@pytest.mark.parametrize("name", ["scale", "shift"])
def test_registered_operator_refuses_them_too(name, registered):
    arguments = NORM | {name: NORM[name].clone().requires_grad_()}
    with pytest.raises(ValueError, match=rf"frozen_bn_relu: {name} is a tensor that requires a gradient"):
        torch.ops.resnet_cuda.frozen_bn_relu(*arguments.values(), True)


def test_operators_without_a_derivative_say_so(registered):
    input = NORM["input"].clone().requires_grad_() * 1
    buffers = [torch.rand(3) for _ in range(4)]
    operators = torch.ops.resnet_cuda
    for call in (
        lambda: operators.frozen_bn_relu_(input, NORM["scale"], NORM["shift"], None, True),
        lambda: operators.frozen_batch_norm_(input, *buffers, 1e-5, None, True, False),
    ):
        with pytest.raises(RuntimeError, match=r"has no derivative; call resnet_cuda\."):
            call()
        with torch.no_grad():
            call()
    with pytest.raises(ValueError, match="need_scale is False; it must be True where a gradient is needed"):
        operators.frozen_batch_norm(input, *buffers, 1e-5, None, True, False)
    output, scale = operators.frozen_batch_norm(input, *buffers, 1e-5, None, True, True)
    assert output.requires_grad
    assert not scale.requires_grad, "a constant"


@pytest.mark.parametrize("gradient", [False, True])
def test_in_place_on_a_tensor_with_the_negative_bit(gradient, backend):
    """The imaginary part of a conjugate is a view whose values are the negated memory."""
    values = torch.randn(2, 3, 4, 5)
    expected = ops.frozen_bn_relu(values, NORM["scale"], NORM["shift"])

    def negative():
        return torch.complex(values, -values).conj().imag

    assert negative().is_neg()
    residual = torch.zeros_like(values).requires_grad_(gradient)
    input = negative()
    assert ops.frozen_bn_relu(input, NORM["scale"], NORM["shift"], residual, inplace=True) is input
    torch.testing.assert_close(input, expected)
    layer = FrozenBatchNorm2d(3)
    torch.testing.assert_close(layer(negative(), inplace=True), layer(values))


@pytest.mark.parametrize("value", ["False", 1, None, torch.tensor(True)], ids=str)
@pytest.mark.parametrize("name", ["relu", "inplace"])
def test_flags_must_be_bools(name, value, backend):
    """A string is true whatever it says."""
    for function in (ops.frozen_bn_relu, reference.frozen_bn_relu):
        with pytest.raises(ValueError, match=rf"^frozen_bn_relu: {name} is .*; it must be True or False"):
            function(**NORM, **{name: value})
    with pytest.raises(ValueError, match=rf"^frozen_batch_norm: {name} is .*; it must be True or False"):
        FrozenBatchNorm2d(3)(NORM["input"], **{name: value})


@pytest.mark.parametrize("eps", [None, "1e-5", True])
def test_eps_must_be_a_number(eps, backend):
    layer = FrozenBatchNorm2d(3)
    layer.eps = eps
    with pytest.raises(TypeError, match=r"frozen_batch_norm: eps is .*; it must be a number"):
        layer(NORM["input"])
