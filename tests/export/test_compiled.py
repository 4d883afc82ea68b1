"""torch.compile, torch.export and AOTInductor of whole backbones: one graph for all sizes, eager's numbers."""

from __future__ import annotations

import io
import shutil

import pytest
import torch
from helpers.compiling import Counter, fresh_compiler  # noqa: F401
from helpers.networks import gradients, levels_of, loss_of, randomise
from helpers.tiny_networks import tiny

from resnet_cuda.blocks import Bottleneck
from resnet_cuda.layers import FrozenBatchNorm2d

# Above 64 pixels: a level of one pixel would be a graph of its own. No two sizes are equal, which Dynamo would take
# for one symbol. In torch 2.10 max pooling compiles what a size is modulo its strides, 64 in all; 2.14 does not.
SHAPES = [(2, 3, 70, 102), (3, 3, 134, 166), (4, 3, 198, 230)]
if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 14):
    SHAPES = [(2, 3, 70, 102), (3, 3, 133, 96), (4, 3, 90, 66)]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


def exported(network):
    axes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(network, (torch.randn(SHAPES[0]),), dynamic_shapes=(axes,))


def assert_same(got, expected):
    torch.testing.assert_close(levels_of(got), levels_of(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dcn", [False, True])
def test_one_graph_for_all_sizes_forward_and_backward(dcn, native):
    network = tiny(dcn).train()
    counter = Counter("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    for shape in SHAPES:
        x = torch.randn(shape)
        expected = network(x)
        loss_of(expected).backward()
        of_eager = gradients(network)
        got = compiled(x)
        assert_same(got, expected)
        loss_of(got).backward()
        torch.testing.assert_close(gradients(network), of_eager, rtol=1e-3, atol=1e-5)
    assert counter.graphs == 1
    # The layer is made of torch's operators there, which the compiler fuses with what is around them.
    assert counter.operators == ({"resnet_cuda.deform_conv2d.default"} if dcn else set())


def test_other_sizes_are_compiled_twice_at_most(native):
    """Without ``dynamic=True`` the second size makes them dynamic; later ones are not compiled again."""
    network, counter = tiny().eval(), Counter("eager")
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    with torch.no_grad():
        for shape in SHAPES:
            x = torch.randn(shape)
            assert_same(compiled(x), network(x))
    assert counter.graphs <= 2


@needs_compiler
def test_inductor_equals_eager(native):
    """A block: most of the time goes into compiling."""
    dcn = {"stage_with_dcn": True, "with_modulated_dcn": True}
    block = randomise(Bottleneck(8, 4, 16, 1, False, 2, 1, FrozenBatchNorm2d, dcn))
    x = torch.randn(2, 8, 9, 13)
    expected = block(x)
    loss_of([expected]).backward()
    of_eager = gradients(block)
    got = torch.compile(block, fullgraph=True)(x)
    torch.testing.assert_close(got, expected)
    loss_of([got]).backward()
    torch.testing.assert_close(gradients(block), of_eager)


@pytest.mark.parametrize("dcn", [False, True])
def test_export_for_all_sizes(dcn, native):
    network = tiny(dcn).eval()
    file = io.BytesIO()
    torch.export.save(exported(network), file)
    file.seek(0)
    program = torch.export.load(file)
    with torch.no_grad():
        for shape in SHAPES:
            x = torch.randn(shape)
            assert_same(program.module()(x), network(x))
    operators = {str(it.target) for it in program.graph.nodes if "resnet_cuda" in str(it.target)}
    assert len(operators) == dcn


def test_16_bit_layers_keep_their_dtype_and_rounding(native):
    """float32 inside, one rounding at the end, as the kernel."""
    network = tiny(dcn=False).eval().bfloat16()
    x = torch.randn(SHAPES[0]).bfloat16()
    program = torch.export.export(network, (x,))
    with torch.no_grad():
        got, expected = levels_of(program.module()(x)), levels_of(network(x))
    assert {level.dtype for level in got} == {torch.bfloat16}
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


@needs_compiler
def test_a_package_of_aotinductor(tmp_path, native):
    network = tiny(stages=1).eval()
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(exported(network), package_path=str(tmp_path / "network.pt2"))
        run = torch._inductor.aoti_load_package(path)
        for shape in SHAPES:
            x = torch.randn(shape)
            assert_same(run(x), network(x))
