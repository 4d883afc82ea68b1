"""Autocast: convolutions go to 16 bit, the norm keeps what it gets, positions and constants keep their digits."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME
from helpers.compare import assert_bitwise_equal
from helpers.problems import deform_arguments, forward_arguments, run

from resnet_cuda import ops
from resnet_cuda.ops.frozen_bn import frozen_batch_norm

SIXTEEN = (torch.bfloat16, torch.float16)
CASE = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]


def sixteen(arguments, dtype):
    """What autocast is to make of them: all but offset and mask."""
    return {key: value if key in ("offset", "mask") else value.to(dtype) for key, value in arguments.items()}


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_deform_conv2d_runs_in_16_bit(dtype, device, backend):
    arguments = deform_arguments(CASE, torch.float32, device)
    arguments["grad"] = arguments["grad"].to(dtype)

    def forward(**tensors):  # as PyTorch advises: the backward runs outside
        with torch.autocast(device.type, dtype):
            return ops.deform_conv2d(**tensors, **CASE.geometry)

    got = run(forward, arguments)
    assert got.output.dtype == dtype
    for name, gradient in got.gradients.items():
        assert gradient.dtype == torch.float32, name
    expected = run(ops.deform_conv2d, sixteen(arguments, dtype), **CASE.geometry)
    assert_bitwise_equal(got.output, expected.output, "output")
    if device.type == "cpu":
        for name, gradient in expected.gradients.items():
            assert_bitwise_equal(got.gradients[name], gradient.float(), name)


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_deform_conv2d_keeps_float32_positions(dtype, device, backend):
    """Half a pixel and 1/64 more, at column 300: positions of 16 bit would lose the 1/64."""
    image = (torch.arange(400, device=device) % 2 * 64.0).reshape(1, 1, 1, -1)
    offset = torch.zeros(1, 2, 1, 400, device=device)
    offset[:, 1] = 0.5 + 1 / 64
    with torch.autocast(device.type, dtype):
        output = ops.deform_conv2d(image, offset, torch.ones(1, 1, 1, 1, device=device))
    assert output.dtype == dtype
    assert output[0, 0, 0, 300:302].tolist() == [33.0, 31.0]


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_deform_conv2d_takes_mixed_inputs(dtype, device, backend):
    """After a 16-bit convolution: 16-bit input beside float32 parameters, offset in 16 bit, mask in float32."""
    arguments = forward_arguments(CASE, torch.float32, device)
    arguments |= {name: arguments[name].to(dtype) for name in ("input", "offset")}
    with torch.autocast(device.type, dtype):
        got = ops.deform_conv2d(**arguments, **CASE.geometry)
    assert got.dtype == dtype
    assert_bitwise_equal(got, ops.deform_conv2d(**sixteen(arguments, dtype), **CASE.geometry), "output")


@pytest.mark.parametrize("gradient", [False, True])
def test_arguments_are_cast_once(gradient, native, monkeypatch):
    """An eager call does not go through the registered autocast kernel, which asks for the dtype again."""
    arguments = forward_arguments(CASE, torch.float32, torch.device("cpu"))
    arguments["input"].requires_grad_(gradient)
    constants = [torch.ones(CASE.out_channels)] * 4
    asked, get = [], torch.get_autocast_dtype
    with torch.autocast("cpu", torch.bfloat16), monkeypatch.context() as patch:
        patch.setattr(torch, "get_autocast_dtype", lambda kind: asked.append(kind) or get(kind))
        output = ops.deform_conv2d(**arguments, **CASE.geometry)
        assert len(asked) == 1
        ops.frozen_bn_relu(output, *constants[:2], output)
        frozen_batch_norm(output, *constants, 1e-5, output, inplace=not gradient)
    assert len(asked) == 1
    assert output.requires_grad == gradient


def test_float64_is_left_alone(device, backend):
    arguments = forward_arguments(CASE, torch.float64, device)
    scale = torch.ones(CASE.out_channels, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        got = ops.deform_conv2d(**arguments, **CASE.geometry)
        normed = ops.frozen_bn_relu(got, scale, scale)
    assert got.dtype == normed.dtype == torch.float64
    assert_bitwise_equal(got, ops.deform_conv2d(**arguments, **CASE.geometry), "output")


def test_disabled_autocast_inside_is_float32(device, backend):
    arguments = forward_arguments(CASE, torch.float32, device)
    with torch.autocast(device.type, torch.bfloat16), torch.autocast(device.type, enabled=False):
        got = ops.deform_conv2d(**arguments, **CASE.geometry)
    assert_bitwise_equal(got, ops.deform_conv2d(**arguments, **CASE.geometry), "output")
    assert got.dtype == torch.float32


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("residual_dtype", [None, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_frozen_bn_relu_keeps_the_dtype_of_its_input(input_dtype, residual_dtype, inplace, device, backend):
    """16 bit stays 16 bit, and float32 is not made 16 bit; the residual follows the input."""
    leaf, residual = (
        None if dtype is None else torch.randn(2, 5, 4, 3, device=device).to(dtype).requires_grad_()
        for dtype in (input_dtype, residual_dtype)
    )
    scale, shift = torch.randn(2, 5, device=device) + 2
    with torch.autocast(device.type, torch.bfloat16):
        hidden = leaf * 1
        output = ops.frozen_bn_relu(hidden, scale, shift, residual, inplace=inplace)
    assert output.dtype == input_dtype
    assert (output is hidden) == inplace
    same = None if residual is None else residual.to(input_dtype)
    assert_bitwise_equal(output, ops.frozen_bn_relu(leaf, scale, shift, same), "output")
    output.sum().backward()
    assert leaf.grad.dtype == input_dtype
    assert residual is None or residual.grad.dtype == residual_dtype


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_frozen_bn_relu_keeps_its_constants_in_float32(dtype, device, backend):
    one = torch.ones(1, 1, 2, 2, dtype=dtype, device=device)
    scale, shift = torch.tensor([1 + 2.0**-12], device=device), torch.tensor([-1.0], device=device)
    with torch.autocast(device.type, dtype):
        assert ops.frozen_bn_relu(one, scale, shift).unique().tolist() == [2.0**-12]


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_the_registered_operators_follow_the_same_rules(dtype, device, registered):
    """As called from an exported graph, past the public functions."""
    arguments = forward_arguments(CASE, torch.float32, device)
    tensors = [arguments[key] for key in ("input", "weight", "offset", "mask", "bias")]
    numbers = (*CASE.stride, *CASE.padding, *CASE.dilation)
    constants = torch.ones(CASE.out_channels, device=device), torch.zeros(CASE.out_channels, device=device)
    with torch.autocast(device.type, dtype):
        output = torch.ops.resnet_cuda.deform_conv2d(*tensors, *numbers)
        normed = torch.ops.resnet_cuda.frozen_bn_relu(output, *constants, output.float(), True)
        in_place = output.clone()
        torch.ops.resnet_cuda.frozen_bn_relu_(in_place, *constants, output.float(), True)
        public = ops.deform_conv2d(**arguments, **CASE.geometry)
    assert output.dtype == normed.dtype == in_place.dtype == dtype
    assert_bitwise_equal(output, public, "output")
    assert_bitwise_equal(in_place, normed, "in place")
