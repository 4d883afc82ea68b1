"""The deformable convolution with a ReLU in its epilogue, against the two operators one after the other."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.layouts import in_format
from helpers.problems import deform_arguments

from resnet_cuda import ops
from resnet_cuda.ops.deform_conv_relu import deform_conv2d_relu


def problem(name, dtype=torch.float32, device="cpu", memory_format=torch.channels_last):
    """Tensors by name, and the geometry. Some results are negative, so that there is something to clamp."""
    case = DEFORM_CASES_BY_NAME[name]
    arguments = in_format(deform_arguments(case, dtype, device), memory_format)
    del arguments["grad"]
    return arguments | case.geometry


@torch.no_grad()
@pytest.mark.parametrize("name", [case.name for case in DEFORM_CASES])
def test_values(name, dtype, memory_format, device, backend):
    """The same bits: rounding keeps the sign."""
    arguments = problem(name, dtype, device, memory_format)
    expected = ops.deform_conv2d(**arguments)
    if arguments["bias"] is not None and expected.numel() > 0:
        arguments["bias"] -= expected.mean()
        expected = ops.deform_conv2d(**arguments)
    found = deform_conv2d_relu(**arguments)
    assert expected.numel() == 0 or (expected < 0).any()
    assert torch.equal(found, expected.relu())
    assert found.stride() == expected.stride()


@torch.no_grad()
def test_nan_stays_nan(device, backend):
    arguments = problem("plain", device=device)
    arguments["offset"][0, 2, 1, 1] = float("nan")
    found = deform_conv2d_relu(**arguments)
    assert found[0, :, 1, 1].isnan().all()
    assert found.isnan().sum() == found.shape[1]


def test_gradients_are_those_of_both(device, backend):
    for needing in ("input", "offset", "mask", "weight", "bias"):
        arguments = problem("plain", torch.float64, device)
        arguments[needing].requires_grad_()
        for function in (deform_conv2d_relu, lambda **given: ops.deform_conv2d(**given).relu()):
            function(**arguments).square().sum().backward()
        twice = arguments[needing].grad.clone()
        arguments[needing].grad = None
        deform_conv2d_relu(**arguments).square().sum().backward()
        torch.testing.assert_close(2 * arguments[needing].grad, twice)


def test_the_registered_operator_has_no_derivative(native):
    arguments = problem("plain")
    tensors = [arguments[name] for name in ("input", "weight", "offset", "mask", "bias")]
    tensors[1].requires_grad_()
    numbers = [number for pair in ("stride", "padding", "dilation") for number in arguments[pair]]
    with pytest.raises(RuntimeError, match=r"resnet_cuda\.deform_conv2d_relu has no derivative"):
        torch.ops.resnet_cuda.deform_conv2d_relu(*tensors, *numbers)


@torch.no_grad()
def test_traced_compiled_mapped_and_on_meta(native):
    arguments = problem("plain")
    expected = deform_conv2d_relu(**arguments)
    rest = {name: value for name, value in arguments.items() if name != "input"}

    def function(input):
        return deform_conv2d_relu(input, **rest)

    input = arguments["input"]
    assert torch.equal(torch.jit.trace(function, (input,))(input), expected)
    assert torch.equal(torch.compile(function, backend="aot_eager", fullgraph=True)(input), expected)
    assert torch.equal(torch.fx.symbolic_trace(function)(input), expected)
    assert deform_conv2d_relu(**{k: v.to("meta") if torch.is_tensor(v) else v for k, v in arguments.items()}).is_meta
    images = {name: arguments[name][:, None] for name in ("input", "offset", "mask")}
    weights = {name: value for name, value in rest.items() if name not in images}

    def one(input, offset, mask):
        return deform_conv2d_relu(input, offset, mask=mask, **weights)

    torch.testing.assert_close(torch.vmap(one)(*images.values())[:, 0], expected)


@torch.no_grad()
def test_autocast(native):
    arguments = problem("plain")
    with torch.autocast("cpu", torch.bfloat16):
        found = deform_conv2d_relu(**arguments)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, ops.deform_conv2d(**arguments).relu())


@torch.no_grad()
def test_bad_arguments(backend):
    arguments = problem("plain")
    with pytest.raises((ValueError, RuntimeError), match="deform_conv2d: offset is"):
        deform_conv2d_relu(**arguments | {"offset": arguments["offset"][:, 1:]})
    with pytest.raises(TypeError, match="weight"):
        deform_conv2d_relu(**arguments | {"weight": 3})
