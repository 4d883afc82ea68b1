"""torch.func's transforms and forward-mode differentiation give what they give for the reference in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from resnet_cuda import ops, reference
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def constant(*shape, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(len(shape))
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


OFFSET, WEIGHT = constant(1, 18, 4, 4, low=0.25, high=0.75), constant(2, 2, 3, 3, low=-1)
MASK = constant(1, 9, 4, 4)


def deform(module, x):
    return module.deform_conv2d(x, OFFSET, WEIGHT, padding=1, mask=MASK)


def norm(module, x, **options):
    scale, shift = torch.tensor([0.5, -2.0]), torch.tensor([0.25, 0.5])
    return module.frozen_bn_relu(x, scale, shift, x * 0.5, **options)


def in_place(module, x):
    return norm(module, x * 1, inplace=True)


FUNCTIONS = {"deform_conv2d": deform, "frozen_bn_relu": norm, "in place": in_place}
TANGENT = torch.linspace(-1, 1, 32).double().reshape(1, 2, 4, 4)

TRANSFORMS = {
    "grad": lambda f, x: grad(lambda it: (f(it) ** 2).sum())(x),
    "vjp": lambda f, x: vjp(f, x)[1](TANGENT)[0],
    "jvp": lambda f, x: jvp(f, (x,), (TANGENT,))[1],
    "hessian": lambda f, x: hessian(lambda it: (f(it) ** 3).sum())(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "vmap": lambda f, x: vmap(f)(torch.stack((x, 2 * x))),
    "vmap of grad": lambda f, x: vmap(grad(lambda it: (f(it) ** 2).sum()))(torch.stack((x, 2 * x))),
    "grad of grad": lambda f, x: grad(lambda it: (grad(lambda at: (f(at) ** 3).sum())(it) ** 2).sum())(x),
}


@pytest.mark.parametrize("transform", list(TRANSFORMS))
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_equals_the_definition(name, transform, backend):
    function, apply = FUNCTIONS[name], TRANSFORMS[transform]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    expected = apply(lambda it: function(reference, it), x)
    assert expected.any()
    torch.testing.assert_close(apply(lambda it: function(ops, it), x), expected)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_forward_mode_by_dual_numbers(name, grad_mode, backend):
    """Tangents count without gradients, too."""
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    expected = jvp(lambda it: FUNCTIONS[name](reference, it), (x,), (TANGENT,))[1]
    with grad_mode(), forward_ad.dual_level():
        output = FUNCTIONS[name](ops, forward_ad.make_dual(x, TANGENT))
        got = forward_ad.unpack_dual(output).tangent
    torch.testing.assert_close(got, expected)


def test_channels_last_under_vmap(backend):
    x = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    one = x[1].contiguous(memory_format=torch.channels_last)
    for function in (deform, norm):
        got = vmap(lambda it, function=function: function(ops, it), in_dims=0)(x)
        torch.testing.assert_close(got[1], function(ops, one))


def test_layers_under_functional_call(backend):
    """Gradients for a layer's parameters as meta-learning asks for them."""
    layer = torch.nn.Sequential(DFConv2d(2, 2), FrozenBatchNorm2d(2)).double()
    torch.nn.init.uniform_(layer[0].offset.weight, -0.1, 0.1)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    parameters = {name: it.detach() for name, it in layer.named_parameters()}

    def loss(values):
        return (functional_call(layer, values, (x,)) ** 2).sum()

    got = grad(loss)(parameters)
    loss(dict(layer.named_parameters())).backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad)


def test_a_gradient_for_the_constants_is_refused(backend):
    x = torch.randn(1, 2, 3, 3)
    with pytest.raises(ValueError, match=r"frozen_bn_relu: scale is a tensor that requires a gradient"):
        grad(lambda scale: ops.frozen_bn_relu(x, scale, torch.zeros(2)).sum())(torch.ones(2))
    layer = FrozenBatchNorm2d(2)
    with pytest.raises(ValueError, match=r"frozen_batch_norm: bias is a tensor that requires a gradient"):
        grad(lambda bias: functional_call(layer, {"bias": bias}, (x,)).sum())(torch.ones(2))


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_forward_mode_for_a_buffer(name, backend):
    """A buffer has no gradient, but it has a tangent: that of the definition, and not 0."""
    layer, x = FrozenBatchNorm2d(2).double(), torch.randn(1, 2, 3, 3, dtype=torch.float64)
    layer.running_mean.uniform_(-1, 1)
    layer.running_var.uniform_(0.5, 2)

    def definition(value):
        it = {key: buffer[:, None, None] for key, buffer in (dict(layer.named_buffers()) | {name: value}).items()}
        return (x - it["running_mean"]) / (it["running_var"] + layer.eps).sqrt() * it["weight"] + it["bias"]

    value = getattr(layer, name)
    expected = jvp(definition, (value,), (torch.ones_like(value),))[1]
    assert expected.any()
    got = jvp(lambda it: functional_call(layer, {name: it}, (x,)), (value,), (torch.ones_like(value),))[1]
    torch.testing.assert_close(got, expected)


def v1(module, x):
    return module.deform_conv2d(x, OFFSET, WEIGHT, torch.ones(2).double(), padding=1)


def without_relu(module, x):
    return norm(module, x, relu=False)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("function", [deform, v1, norm, without_relu])
def test_forward_mode_of_a_backward(function, create_graph, backend):
    """The forward ran before; the gradient that comes in has a tangent."""
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    grad_output = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    tangents = []
    for module in (ops, reference):
        output = x + function(module, x)
        with forward_ad.dual_level():
            (found,) = torch.autograd.grad(
                output, x, forward_ad.make_dual(grad_output, TANGENT), create_graph=create_graph
            )
            tangents.append(forward_ad.unpack_dual(found))
    for found, expected in zip(*tangents, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("function", [deform, v1, norm, without_relu])
def test_many_gradients_at_once(function, backend):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    grads = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    output = function(ops, x)
    (found,) = torch.autograd.grad(output, x, grads, retain_graph=True, is_grads_batched=True)
    expected = torch.stack([torch.autograd.grad(output, x, one, retain_graph=True)[0] for one in grads])
    torch.testing.assert_close(found, expected)
