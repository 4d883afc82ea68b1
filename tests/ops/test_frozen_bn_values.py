"""frozen_bn_relu, native against the reference: values and gradients, layouts, types."""

from functools import partial

import pytest
import torch
from helpers.cases import NORM_CASES, NormCase
from helpers.compare import assert_bitwise_equal, assert_gradients_present
from helpers.layouts import channels_last, every_second, expanded, in_format, misaligned, transposed, window
from helpers.norm_problems import assert_norm_run_close, norm_arguments, norm_run, wanted_gradients
from helpers.problems import gradcheck, run

from resnet_cuda import ops, reference

BY_NAME = {case.name: case for case in NORM_CASES}
LAYOUTS = (every_second, transposed, window, expanded, misaligned, channels_last)


@pytest.mark.parametrize("case", NORM_CASES, ids=str)
def test_values_and_gradients(case, memory_format, dtype, device, native):
    arguments = in_format(norm_arguments(case, dtype, device), memory_format)
    got = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
    assert_norm_run_close(got, arguments, case, memory_format=memory_format)


@pytest.mark.parametrize("case", NORM_CASES, ids=str)
def test_exact_on_small_fractions(case, memory_format, dtype, device, native):
    """Nothing is rounded but the result, so not a bit may differ; many values are exactly 0 before the ReLU."""
    arguments = in_format(norm_arguments(case, dtype, device, exact=True), memory_format)
    got = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
    expected = norm_run(reference.frozen_bn_relu, arguments, relu=case.relu)
    assert expected.output.any()
    assert expected.gradients["input"].any()
    assert_bitwise_equal(got.output, expected.output, "output")
    for name, gradient in expected.gradients.items():
        if gradient is not None:
            assert_bitwise_equal(got.gradients[name], gradient, name)


def test_gradient_at_exactly_zero_is_zero(dtype, device, backend):
    input = torch.tensor([1.0, 2.0, 3.0], dtype=dtype, device=device).reshape(1, 1, 1, 3).requires_grad_()
    residual = torch.zeros(1, 1, 1, 3, dtype=dtype, device=device).requires_grad_()
    one = torch.ones(1, device=device)
    output = ops.frozen_bn_relu(input, one, -2 * one, residual)
    assert output.flatten().tolist() == [0.0, 0.0, 1.0]
    output.sum().backward()
    assert input.grad.flatten().tolist() == residual.grad.flatten().tolist() == [0.0, 0.0, 1.0]


def test_relu_keeps_nan_and_infinity(dtype, device, backend):
    nan, infinity = float("nan"), float("inf")
    values = torch.tensor([nan, infinity, -infinity, 1.0, -1.0, nan, 2.0], dtype=dtype, device=device)
    one, zero = torch.ones(1, device=device), torch.zeros(1, device=device)
    for count in (7, 70):  # past the width of a vector too
        row = values.repeat(count // 7).reshape(1, 1, 1, count)
        output = ops.frozen_bn_relu(row, one, zero)
        expected = torch.tensor([nan, infinity, 0.0, 1.0, 0.0, nan, 2.0], dtype=dtype).repeat(count // 7)
        assert_bitwise_equal(output.flatten().cpu(), expected, "output")
        residual = torch.full_like(row, nan)
        assert ops.frozen_bn_relu(torch.ones_like(row), one, zero, residual).isnan().all()


@pytest.mark.parametrize("wanted", [("input",), ("residual",), ("input", "residual")], ids="+".join)
@pytest.mark.parametrize("name", ["residual", "residual_affine"])
def test_only_the_wanted_gradients(wanted, name, device, native):
    case = BY_NAME[name]
    arguments = norm_arguments(case, torch.float32, device)
    got = run(ops.frozen_bn_relu, arguments, wanted, relu=case.relu)
    everything = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
    assert_gradients_present(got.gradients, wanted)
    for one in wanted:
        assert_bitwise_equal(got.gradients[one], everything.gradients[one], one)


@pytest.mark.parametrize("constant_dtype", [torch.float32, torch.float64], ids=str)
def test_constants_in_float32_or_float64(constant_dtype, dtype, device, native):
    case = BY_NAME["residual"]
    arguments = norm_arguments(case, dtype, device)
    arguments |= {name: arguments[name].to(constant_dtype) for name in ("scale", "shift")}
    got = norm_run(ops.frozen_bn_relu, arguments, relu=case.relu)
    assert_norm_run_close(got, arguments, case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_is_rounded_once(dtype, device, backend):
    one = torch.ones(1, 1, 3, 3, dtype=dtype, device=device)
    scale = torch.tensor([1 + 2.0**-12], device=device)  # 1 in both 16-bit types
    assert ops.frozen_bn_relu(one, scale, torch.tensor([-1.0], device=device)).unique().tolist() == [2.0**-12]
    zero = torch.zeros(1, device=device)
    assert ops.frozen_bn_relu(one, scale, zero, -one, relu=False).unique().tolist() == [2.0**-12]


@pytest.mark.parametrize("which", ["input", "residual", "grad", "all"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_any_layout_gives_the_values_of_contiguous_tensors(layout, which, device, native):
    case = BY_NAME["channels_17"]
    arguments = norm_arguments(case, torch.float32, device)
    names = ("input", "residual", "grad") if which == "all" else (which,)
    arguments |= {name: layout(arguments[name]) for name in names}
    got = norm_run(ops.frozen_bn_relu, arguments, relu=False)  # images repeated: values near 0 would be possible
    assert_norm_run_close(got, arguments, NormCase("layout", case.shape, residual=True, relu=False))


def test_the_result_has_the_layout_of_the_input(memory_format, dtype, device, backend):
    arguments = norm_arguments(BY_NAME["residual"], dtype, device)
    arguments["input"] = arguments["input"].contiguous(memory_format=memory_format)
    got = norm_run(ops.frozen_bn_relu, arguments)
    assert got.output.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("shape", [(0, 4, 5, 7), (2, 4, 0, 7), (2, 0, 5, 7)], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_empty_tensors_forward_and_backward(shape, inplace, dtype, device, backend):
    leaf = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
    residual = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
    constants = torch.ones(shape[1], device=device), torch.zeros(shape[1], device=device)
    output = ops.frozen_bn_relu(leaf * 1, *constants, residual, inplace=inplace)
    assert output.shape == shape
    assert output.dtype == dtype
    output.sum().backward()
    assert leaf.grad.shape == residual.grad.shape == shape


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_gradcheck(relu, with_residual, device, backend):
    case = NormCase("gradcheck", (2, 3, 4, 2), residual=with_residual, relu=relu)
    arguments = norm_arguments(case, torch.float64, device)
    leaves = {name: arguments[name].requires_grad_() for name in wanted_gradients(arguments)}
    constants = {"scale": arguments["scale"], "shift": arguments["shift"], "relu": relu}
    assert gradcheck(partial(ops.frozen_bn_relu, **constants), leaves)
