"""torch.library.opcheck on every registered operator, with all of its default tests."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME, NormCase
from helpers.layouts import in_format, transposed
from helpers.norm_problems import norm_arguments
from helpers.problems import deform_arguments

from resnet_cuda.ops.conv2d_winograd import winograd_weight

pytestmark = pytest.mark.usefixtures("registered")

DEFORM_NAMES = ("plain", "v1_no_bias", "groups_2_offset_groups_4", "stride_2x3")
REGISTERED = {
    "conv2d_winograd",
    "deform_conv2d",
    "deform_conv2d_relu",
    "deform_conv2d_backward",
    "frozen_bn_relu",
    "frozen_bn_relu_",
    "frozen_batch_norm",
    "frozen_batch_norm_",
    "frozen_bn_relu_backward",
}


def check(operator, arguments):
    result = torch.library.opcheck(getattr(torch.ops.resnet_cuda, operator), arguments)
    assert set(result.values()) == {"SUCCESS"}, result


def deform(name, device, memory_format, dtype=torch.float32, position_dtype=None, needs_grad=True):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = in_format(deform_arguments(case, dtype, device, position_dtype), memory_format)
    grad = arguments.pop("grad")
    tensors = [arguments[key] for key in ("input", "weight", "offset", "mask", "bias")]
    tensors = [value if value is None else value.requires_grad_(needs_grad) for value in tensors]
    return grad, tensors, (*case.stride, *case.padding, *case.dilation)


def test_these_are_all_operators():
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("resnet_cuda::")]
    found = {name.split("::")[1].split(".")[0] for name in names}
    # The self-test of the layer for sm_90a is there where the library has such code; it has no derivative or shape.
    assert found - {"warpgroup_product"} == REGISTERED


@pytest.mark.parametrize("name", DEFORM_NAMES)
def test_deform_conv2d(name, memory_format, device):
    _, tensors, numbers = deform(name, device, memory_format)
    check("deform_conv2d", (*tensors, *numbers))


@pytest.mark.parametrize("name", DEFORM_NAMES)
def test_deform_conv2d_relu(name, memory_format, device):
    _, tensors, numbers = deform(name, device, memory_format, needs_grad=False)
    check("deform_conv2d_relu", (*tensors, *numbers))


@pytest.mark.parametrize(
    ("dtype", "position_dtype"),
    [
        (torch.float64, None),
        (torch.float16, None),
        (torch.bfloat16, None),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_deform_conv2d_dtypes(dtype, position_dtype, device):
    _, tensors, numbers = deform("plain", device, torch.contiguous_format, dtype, position_dtype)
    check("deform_conv2d", (*tensors, *numbers))


@pytest.mark.parametrize("needs", [(True,) * 5, (True, False, True, False, True), (False,) * 5], ids=str)
def test_deform_conv2d_backward(memory_format, needs, device):
    for name in ("plain", "groups_2_offset_groups_4"):
        grad, tensors, numbers = deform(name, device, memory_format, needs_grad=False)
        check("deform_conv2d_backward", (grad, *tensors[:4], *numbers, *needs))


@pytest.mark.parametrize(
    ("name", "dtypes"), [("v1_no_bias", ()), ("plain", (torch.bfloat16, torch.float32))], ids=["no mask", "16 bit"]
)
def test_deform_conv2d_backward_without_mask_and_in_16_bit(name, dtypes, device):
    grad, tensors, numbers = deform(name, device, torch.channels_last, *dtypes, needs_grad=False)
    check("deform_conv2d_backward", (grad, *tensors[:4], *numbers, *(True,) * 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("padding", [(1, 1), (0, 2)])
def test_conv2d_winograd(memory_format, dtype, padding):
    x = torch.randn(2, 5, 7, 6, dtype=dtype).contiguous(memory_format=memory_format)
    weight = winograd_weight(torch.randn(40, 5, 3, 3))
    size = (2, 40, 5 + 2 * padding[0], 4 + 2 * padding[1])
    for bias, residual in ((None, None), (torch.randn(40), torch.randn(size).to(dtype))):
        check("conv2d_winograd", (x, weight, 40, bias, residual, True, *padding))


def norm(device, memory_format, dtype, with_residual):
    case = NormCase("opcheck", (2, 6, 5, 7), residual=with_residual)
    return in_format(norm_arguments(case, dtype, device), memory_format)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_frozen_bn_relu(memory_format, dtype, with_residual, relu, device):
    a = norm(device, memory_format, dtype, with_residual)
    for name in ("input", "residual"):
        if a[name] is not None:
            a[name].requires_grad_()
    check("frozen_bn_relu", (a["input"], a["scale"], a["shift"], a["residual"], relu))


@pytest.mark.parametrize("with_residual", [True, False])
def test_frozen_bn_relu_in_place(memory_format, with_residual, device):
    a = norm(device, memory_format, torch.float32, with_residual)
    check("frozen_bn_relu_", (a["input"], a["scale"], a["shift"], a["residual"], True))


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("relu", [True, False])
def test_frozen_bn_relu_backward(memory_format, needs, relu, device):
    a = norm(device, memory_format, torch.float32, False)
    output = torch.ops.resnet_cuda.frozen_bn_relu(a["input"], a["scale"], a["shift"], None, True) if relu else None
    check("frozen_bn_relu_backward", (a["grad"], a["scale"], output, *needs))
    # the gradient in another layout than the output
    check("frozen_bn_relu_backward", (transposed(a["grad"]), a["scale"], output, *needs))
    if any(needs) and memory_format == torch.contiguous_format:  # with its own derivative
        check("frozen_bn_relu_backward", (a["grad"].requires_grad_(), a["scale"], output, *needs))


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("operator", ["frozen_batch_norm", "frozen_batch_norm_"])
def test_frozen_batch_norm(operator, with_scale, memory_format, device):
    a = norm(device, memory_format, torch.bfloat16, True)
    buffers = a["scale"], a["shift"], torch.randn_like(a["scale"]), torch.rand_like(a["scale"])
    if operator == "frozen_batch_norm" and with_scale:
        a["input"].requires_grad_()
        a["residual"].requires_grad_()
    check(operator, (a["input"], *buffers, 1e-5, a["residual"], True, with_scale))


# A minute each: the derivative is the reference's.
@pytest.mark.parametrize("name", ["groups_2_offset_groups_4", "v1_no_bias"])
def test_deform_conv2d_backward_with_its_derivative(name, device):
    grad, tensors, numbers = deform(name, device, torch.contiguous_format)
    *tensors, bias = tensors
    needs = (True, True, True, tensors[3] is not None, bias is not None)
    check("deform_conv2d_backward", (grad.requires_grad_(), *tensors, *numbers, *needs))
