"""Under torch.compile with transforms, torch.jit.trace and make_fx blocks and operators give eager values."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import randomise
from torch._dynamo import compiled_autograd
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from resnet_cuda import ops
from resnet_cuda.blocks import Bottleneck
from resnet_cuda.layers import FrozenBatchNorm2d

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; shapes become constants in a trace


@pytest.fixture
def x():
    return torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["plain", "deformable"])
def block(request):
    torch.manual_seed(2)
    dcn = {"stage_with_dcn": True, "with_modulated_dcn": True} if request.param == "deformable" else {}
    return randomise(Bottleneck(8, 4, 16, 1, False, 1, 1, FrozenBatchNorm2d, dcn)).eval()


def functions():
    offset, weight = torch.rand(2, 18, 5, 5) * 0.5 + 0.2, torch.randn(8, 8, 3, 3)
    scale, shift = torch.rand(8), torch.rand(8)
    return {
        "layer": randomise(FrozenBatchNorm2d(8)),
        "frozen_bn_relu": lambda x: ops.frozen_bn_relu(x, scale, shift),
        "deform_conv2d": lambda x: ops.deform_conv2d(x, offset, weight, padding=1),
    }


@pytest.mark.parametrize("name", ["layer", "frozen_bn_relu", "deform_conv2d"])
def test_transforms_inside_a_compiled_function(name, x, native):
    function = functions()[name]
    for transformed in (
        lambda it: jvp(function, (it,), (torch.ones_like(it),))[1],
        grad(lambda it: function(it).sin().sum()),
    ):
        expected = transformed(x)
        assert expected.any()
        compiled = torch.compile(transformed, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        torch._dynamo.reset()


@pytest.mark.parametrize("name", ["layer", "frozen_bn_relu", "deform_conv2d"])
def test_dual_numbers_into_a_compiled_function(name, x, native):
    function = functions()[name]
    expected = jvp(function, (x,), (torch.ones_like(x),))[1]
    with forward_ad.dual_level():
        output = torch.compile(function, backend="aot_eager")(forward_ad.make_dual(x, torch.ones_like(x)))
        torch.testing.assert_close(forward_ad.unpack_dual(output).tangent, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["layer", "frozen_bn_relu", "deform_conv2d"])
def test_compiled_autograd_of_an_eager_forward(name, x, native):
    """It traces the operators' backward, which in eager mode calls them by a shorter way."""
    function = functions()[name]
    x.requires_grad_()
    (expected,) = torch.autograd.grad(function(x).square().sum(), x)
    with compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        function(x).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)
    torch._dynamo.reset()


def test_jit_trace_with_parameters_that_are_trained(block, x, native):
    traced = torch.jit.trace(block, x)
    torch.testing.assert_close(traced(x), block(x))
    parameters = list(block.parameters())
    got, expected = (torch.autograd.grad(function(x).sum(), parameters) for function in (traced, block))
    torch.testing.assert_close(got, expected)


def test_jit_optimize_for_inference_keeps_the_values(block, x, native):
    """Its passes drop in-place operators that they do not know."""
    with torch.no_grad():
        optimized = torch.jit.optimize_for_inference(torch.jit.trace(block, x))
        for _ in range(3):  # it optimises again after its first calls
            torch.testing.assert_close(optimized(x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_make_fx_gives_the_eager_values(grad_mode, block, x, native):
    with grad_mode():
        graph = make_fx(block)(x)
        torch.testing.assert_close(graph(x), block(x))


@pytest.mark.parametrize("name", ["downsample.0.weight", "bn1.running_var"])
def test_vmap_over_one_of_the_tensors(name, block, x, native):
    """With a convolution's weight its result is batched, and what is added to it is not."""

    def call(value):
        return functional_call(block, {name: value}, (x,))

    value = block.get_parameter(name).detach() if name.endswith("weight") else block.get_buffer(name)
    got = vmap(call)(torch.stack((value, 2 * value)))
    torch.testing.assert_close(got, torch.stack((call(value), call(2 * value))))
