"""The deformable layers: the plain modules, and the one that predicts its offsets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from resnet_cuda import reference
from resnet_cuda._arguments import pair
from resnet_cuda.layers import Conv2d, DeformConv, DeformConv2d, DFConv2d, ModulatedDeformConv, group_norm


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 2), ((5, 3), (2, 1), (1, 2)), (1, 1, 1), ((1, 5), 1, 1)]
)
def test_a_layer_is_offsets_then_convolution(modulated, groups, kernel, stride, dilation, backend):
    layer = DFConv2d(4, 6, modulated, kernel, stride, 2, dilation, groups).double()
    torch.nn.init.normal_(layer.offset.weight, std=0.3)
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    kernel, stride, dilation = (pair("", "", value) for value in (kernel, stride, dilation))
    taps = kernel[0] * kernel[1]
    padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    predicted = F.conv2d(x, layer.offset.weight, layer.offset.bias, stride, padding, dilation)
    assert predicted.shape[1] == (3 if modulated else 2) * groups * taps
    offset = predicted[:, : 2 * groups * taps]
    mask = predicted[:, 2 * groups * taps :].sigmoid() if modulated else None
    expected = reference.deform_conv2d(x, offset, layer.conv.weight, None, stride, padding, dilation, mask)
    assert expected.any()
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("modulated", [False, True])
def test_a_new_layer_has_offsets_of_0(modulated):
    """Offsets 0: v1 is the convolution, v2 half of it."""
    layer = DFConv2d(4, 6, modulated)
    x = torch.randn(2, 4, 7, 8)
    expected = F.conv2d(x, layer.conv.weight, padding=1) * (0.5 if modulated else 1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert list(layer.state_dict()) == ["offset.weight", "offset.bias", "conv.weight"]


def test_empty_batches_forward_and_backward(backend):
    layer = DFConv2d(4, 6)
    x = torch.randn(0, 4, 7, 8, requires_grad=True)
    output = layer(x)
    assert output.shape == (0, 6, 7, 8)
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert not layer.conv.weight.grad.any()
    assert Conv2d(4, 6, 3)(x).shape == (0, 6, 5, 6)


def test_modules_of_maskrcnn_benchmark_equal_the_reference(backend):
    x, offset, mask = torch.randn(1, 4, 6, 6), torch.randn(1, 36, 6, 6), torch.rand(1, 18, 6, 6)
    first = DeformConv(4, 8, 3, padding=1, groups=2, deformable_groups=2)
    second = ModulatedDeformConv(4, 8, 3, padding=1, groups=2, deformable_groups=2, bias=True)
    assert list(first.state_dict()) == ["weight"]
    assert list(second.state_dict()) == ["weight", "bias"]
    expected = reference.deform_conv2d(x, offset, first.weight, None, 1, 1, 1)
    torch.testing.assert_close(first(x, offset), expected, atol=1e-5, rtol=1e-4)
    expected = reference.deform_conv2d(x, offset, second.weight, second.bias, 1, 1, 1, mask)
    torch.testing.assert_close(second(x, offset, mask), expected, atol=1e-5, rtol=1e-4)


def test_offsets_of_another_number_of_groups():
    layer = DeformConv(4, 8, 3, padding=1, deformable_groups=2)
    with pytest.raises(ValueError, match=r"DeformConv: offset is of shape \(1, 18, 6, 6\); it must have 36 channels"):
        layer(torch.randn(1, 4, 6, 6), torch.randn(1, 18, 6, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 5, "groups": 2}, "in_channels is 5; it must be divisible by groups = 2"),
        ({"out_channels": 5, "groups": 2}, "out_channels is 5; it must be divisible by groups = 2"),
        ({"deformable_groups": 3}, "deformable_groups is 3; it must divide in_channels = 4"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size is \(3, 3, 3\); it must be an int or two ints"),
        ({"stride": "2"}, "stride is '2'; it must be an int or two ints"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModulatedDeformConv(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | arguments))


@pytest.mark.parametrize("kernel", [3, 1, (3, 5)])
def test_a_kernel_size_as_the_third_argument_is_explained(kernel):
    with pytest.raises(ValueError, match="with_modulated_dcn is .* It is the third argument, .* give kernel_size by"):
        DFConv2d(4, 6, kernel)


def test_the_module_equals_torchvisions():
    torchvision_ops = pytest.importorskip("torchvision.ops", reason="compares with torchvision")
    theirs = torchvision_ops.DeformConv2d(4, 6, (3, 5), (1, 2), (1, 2), 1, 2, bias=True)
    ours = DeformConv2d(4, 6, (3, 5), (1, 2), (1, 2), 1, 2, bias=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 8, 9)
    offset, mask = torch.randn(2, 30, 8, 5), torch.rand(2, 15, 8, 5)
    torch.testing.assert_close(ours(x, offset, mask), theirs(x, offset, mask), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours(x, offset), theirs(x, offset), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [({}, 32), ({"num_groups": 4}, 4), ({"num_groups": -1, "dim_per_group": 16}, 4), ({"divisor": 2}, 16)],
)
def test_group_norm_chooses_the_number_of_groups(arguments, groups):
    norm = group_norm(64, **arguments)
    assert norm.num_groups == groups
    assert norm.num_channels == 64 // arguments.get("divisor", 1)
    assert norm.eps == 1e-5


@pytest.mark.parametrize("arguments", [{"num_groups": 3}, {"dim_per_group": 4}, {"num_groups": -1}])
def test_group_norm_refuses_groups_that_do_not_divide(arguments):
    with pytest.raises(ValueError, match="group_norm: num_groups is"):
        group_norm(64, **arguments)
