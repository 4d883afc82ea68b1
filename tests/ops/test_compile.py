"""torch.compile: one graph, dynamic shapes, forward and backward, the same numbers as eager."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from helpers.cases import DEFORM_CASES_BY_NAME, NormCase
from helpers.compiling import Counter, fresh_compiler  # noqa: F401
from helpers.layouts import in_format
from helpers.norm_problems import norm_arguments
from helpers.problems import deform_arguments, run

from resnet_cuda import ops, use_backend

# The first has no two sizes equal: dynamo takes equal ones for the same symbol.
SHAPES = [(2, 9, 11), (3, 12, 7), (1, 5, 17), (4, 6, 20)]


def deform_block(x, p):
    """As a layer uses it: offset and mask from a convolution, the norm in place over the result, the residual last."""
    both = F.conv2d(x, p["predict"], p["predict_bias"], padding=1)
    offset, mask = both[:, :36], both[:, 36:].sigmoid()
    y = ops.deform_conv2d(x, offset, p["weight"], p["bias"], padding=1, mask=mask)
    y = ops.frozen_bn_relu(y, p["scale"], p["shift"], inplace=True)
    y = F.conv2d(y, p["last"])
    return ops.frozen_bn_relu(y, p["scale"], p["shift"], residual=x, inplace=True)


def parameters(device):
    """Those that require gradients, and all: they and the norm's constants."""

    def normal(*shape):
        return torch.randn(shape, device=device, dtype=torch.float64)

    leaves = {
        "predict": normal(54, 8, 3, 3) * 0.2,
        "weight": normal(8, 4, 3, 3) * 0.2,
        "last": normal(8, 8, 1, 1) * 0.2,
    }
    leaves |= {"predict_bias": normal(54), "bias": normal(8)}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    return leaves, leaves | {"scale": normal(8), "shift": normal(8)}


def gradients(function, x, leaves, everything):
    x = x.clone().requires_grad_()
    y = function(x, everything)
    return y, *torch.autograd.grad(y.square().sum(), [x, *leaves.values()])


def assert_compiles(function, arguments, **options):
    """``function`` compiled gives eager's output and gradients, in eager's layout."""
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    eager, got = (run(one, arguments, **options) for one in (function, compiled))
    for one, right in [(got.output, eager.output), *((got.gradients[key], eager.gradients[key]) for key in eager[1])]:
        torch.testing.assert_close(one, right)
        assert one.stride() == right.stride()


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_one_graph_for_all_shapes(compiler, device, backend):
    if backend == "reference" and compiler == "eager":
        pytest.skip("the other compiler does that, too, and each takes a minute")
    leaves, everything = parameters(device)
    counter = Counter(compiler)
    compiled = torch.compile(deform_block, fullgraph=True, dynamic=True, backend=counter)
    for batch, height, width in SHAPES:
        x = torch.randn(batch, 8, height, width, device=device, dtype=torch.float64)
        expected = gradients(deform_block, x, leaves, everything)
        got = gradients(compiled, x, leaves, everything)
        assert all(right.any() for right in expected)
        torch.testing.assert_close(got, expected)
    # A batch of 1 is a graph of its own, by F.conv2d; one for each size would mean that the shapes are not dynamic.
    assert counter.graphs <= 2


@pytest.mark.parametrize("name", ["v1_no_bias", "groups_2_offset_groups_4", "per_axis_all"])
def test_compiled_deform_conv2d_equals_eager(name, device, native):
    case = DEFORM_CASES_BY_NAME[name]
    assert_compiles(ops.deform_conv2d, deform_arguments(case, torch.float32, device), **case.geometry)


@pytest.mark.parametrize("inplace", [False, True])
def test_compiled_frozen_bn_relu_equals_eager(inplace, memory_format, device, native):
    arguments = norm_arguments(NormCase("compiled", (2, 4, 5, 6), residual=True), torch.float32, device)
    scale, shift = arguments.pop("scale"), arguments.pop("shift")

    def function(input, residual):
        return ops.frozen_bn_relu(input * 2, scale, shift, residual, inplace=inplace)

    assert_compiles(function, in_format(arguments, memory_format))


def test_in_place_on_a_graph_input_is_seen_outside(device, native):
    scale, shift = torch.randn(2, 4, device=device)
    compiled = torch.compile(
        lambda x: ops.frozen_bn_relu(x, scale, shift, inplace=True), fullgraph=True, backend="aot_eager"
    )
    x = torch.randn(2, 4, 5, 6, device=device)
    expected = ops.frozen_bn_relu(x, scale, shift)
    compiled(x)
    torch.testing.assert_close(x, expected)


def test_native_operators_are_in_the_graph(registered):
    """Each once, not traced into something else."""
    seen = []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if "resnet_cuda" in str(node.target))
        return graph

    _, everything = parameters("cpu")
    torch.compile(deform_block, fullgraph=True, backend=look)(torch.randn(2, 8, 6, 6).double(), everything)
    assert [name.split(".")[1] for name in seen] == ["deform_conv2d", "frozen_bn_relu", "frozen_bn_relu"]


def test_another_backend_is_compiled_again(registered):
    """A function compiled on one implementation is compiled again when the other is chosen."""
    counter = Counter("eager")
    scale, shift = torch.randn(2, 4)
    compiled = torch.compile(lambda x: ops.frozen_bn_relu(x, scale, shift), fullgraph=True, backend=counter)
    x = torch.randn(2, 4, 5, 6)
    for name, graphs in (("native", 1), ("reference", 2), ("native", 2)):
        with use_backend(name):
            torch.testing.assert_close(compiled(x), ops.frozen_bn_relu(x, scale, shift))
        assert counter.graphs == graphs


def test_autocast_inside_equals_eager(native):
    _, everything = parameters("cpu")
    everything = {key: value.detach().float() for key, value in everything.items()}

    def function(x):
        with torch.autocast("cpu", torch.bfloat16):
            return deform_block(x, everything)

    x = torch.randn(2, 8, 6, 6, dtype=torch.bfloat16)
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, function(x))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_equals_eager(native):
    """One small graph: most of the time goes into compiling what is around the operators."""
    _, everything = parameters("cpu")
    scale, shift = everything["scale"], everything["shift"]
    weight = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    offset = torch.randn(2, 36, 6, 7, dtype=torch.float64)

    def function(x):
        y = ops.deform_conv2d(x, offset, weight, padding=1)
        return ops.frozen_bn_relu(y, scale, shift, residual=x, inplace=True)

    x = torch.randn(2, 8, 6, 7, dtype=torch.float64, requires_grad=True)
    got, expected = torch.compile(function, fullgraph=True, dynamic=True)(x), function(x)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), x), torch.autograd.grad(expected.sum(), x))
