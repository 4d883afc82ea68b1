"""FlopCounterMode counts a deformable layer as the plain convolution of its shape, forward and backward."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import DeformCase
from helpers.problems import forward_arguments
from helpers.processes import run_python
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet_cuda import ops
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d


def counted(function, *arguments) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops()


def step(layer, x):
    layer(x).sum().backward()


# Kernel, stride, dilation, deformable groups.
SHAPES = [(3, 1, 1, 1), (3, 2, 1, 4), ((5, 3), (2, 1), (1, 2), 2), (1, 1, 1, 1)]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "deformable_groups"), SHAPES)
def test_a_layer_counts_as_its_two_convolutions(kernel, stride, dilation, deformable_groups, modulated, backend):
    layer = DFConv2d(8, 12, modulated, kernel, stride, 1, dilation, deformable_groups)
    offset, padding = layer.offset, layer.conv.padding
    plain = nn.Conv2d(8, 12, kernel, stride, padding, dilation, bias=False)
    predicting = nn.Conv2d(8, offset.out_channels, kernel, stride, padding, dilation)
    x = torch.randn(2, 8, 10, 11, requires_grad=True)
    forward = counted(plain, x)
    assert forward > 0
    assert counted(layer, x) == forward + counted(predicting, x)
    assert counted(step, layer, x) == counted(step, plain, x) + counted(step, predicting, x)
    assert counted(step, plain, x) == 3 * forward


def test_groups_divide_the_count(native):
    """By hand: 2 * N*Ho*Wo * O * C/groups * kh*kw."""
    x, offset, weight = torch.randn(2, 8, 6, 7), torch.zeros(2, 18, 6, 7), torch.randn(12, 4, 3, 3)
    assert counted(lambda: ops.deform_conv2d(x, offset, weight, padding=1)) == 2 * (2 * 6 * 7) * 12 * 4 * 9


@pytest.mark.parametrize(
    ("trained", "products"),
    [
        *[("input", 1), ("offset", 1), ("mask", 1), ("weight", 1), ("bias", 0)],
        *[("input offset mask", 1), ("offset weight", 2), ("input offset weight mask bias", 2)],
    ],
)
def test_backward_counts_the_products_that_are_asked_for(trained, products, native):
    case = DeformCase("flops", batch=1, channels=4, out_channels=4, size=(5, 6))
    arguments = forward_arguments(case, torch.float32)
    for name in trained.split():
        arguments[name].requires_grad_()
    output = ops.deform_conv2d(**arguments, **case.geometry)
    assert counted(output.sum().backward) == products * 2 * 5 * 6 * 4 * 4 * 9


def test_the_same_on_meta_and_compiled(native):
    layer = DFConv2d(8, 12)
    x = torch.randn(2, 8, 10, 11, requires_grad=True)
    forward, training = counted(layer, x), counted(step, layer, x)
    assert training == 3 * forward > 0
    with torch.device("meta"):
        assert counted(step, DFConv2d(8, 12), torch.randn(2, 8, 10, 11, requires_grad=True)) == training
    # Not fullgraph: torch runs what it meets under a dispatch mode eagerly.
    compiled = torch.compile(lambda x: layer(x), backend="aot_eager")
    step(compiled, x)
    assert counted(step, compiled, x) == training


def test_frozen_norms_count_nothing_as_torchs_do(native):
    norm, x = FrozenBatchNorm2d(4), torch.randn(2, 4, 5, 6, requires_grad=True)
    assert counted(step, norm, x) == counted(step, nn.BatchNorm2d(4).eval(), x) == 0


CHILD = """
import importlib.util, sys
import torch
{before}
known = set(sys.modules)
import resnet_cuda
assert {imported} == ("torch.utils.flop_counter" in sys.modules)
assert {imported} or not any(name.split(".")[0] == "triton" for name in set(sys.modules) - known)
importlib.util.find_spec("torch.utils.flop_counter")  # only asked for: nothing is executed, nothing lost
finders = len(sys.meta_path)
from torch.utils.flop_counter import FlopCounterMode, flop_registry
assert len(sys.meta_path) == finders - {finders}
import torch.utils.flop_counter as counter
assert counter.__spec__.name == "torch.utils.flop_counter"
assert torch.ops.resnet_cuda.deform_conv2d in flop_registry
assert torch.ops.resnet_cuda.deform_conv2d_backward in flop_registry
print("registered")
"""


@pytest.mark.parametrize("first", [True, False])
def test_registered_whoever_comes_first_and_at_no_cost(first, registered):
    before = "import torch.utils.flop_counter" if first else ""
    code = CHILD.format(before=before, imported=first, finders=0 if first else 1)
    child = run_python("-c", code)
    assert child.stdout == "registered\n", child.stderr
