"""Each documented bad argument of deform_conv2d raises an error that names it, on every implementation."""

import pytest
import torch
from helpers.bad_arguments import ERRORS, ids, moved, tensor
from helpers.bad_deform_arguments import DEVICES, DTYPES, GEOMETRY, HUGE, NO_TENSORS, SHAPES, good

from resnet_cuda import ops, reference

BAD = [*ids(SHAPES), *ids(GEOMETRY), *ids(DTYPES), *ids(NO_TENSORS), *ids(DEVICES)]


def test_the_good_arguments_are_good(backend):
    assert ops.deform_conv2d(**good()).shape == (2, 6, 7, 7)
    assert reference.deform_conv2d(**good()).shape == (2, 6, 7, 7)


@pytest.mark.parametrize(("name", "change"), BAD)
def test_bad_argument_is_named(name, change, backend):
    for function in (ops.deform_conv2d, reference.deform_conv2d):
        with pytest.raises(ERRORS, match=rf"^deform_conv2d: (?:{name})\b.* must be "):
            function(**(good() | change))


@pytest.mark.parametrize("change", HUGE, ids=str)
def test_huge_geometry_is_an_error(change, backend):
    with pytest.raises(ERRORS, match=r"^deform_conv2d: (?:input|offset|.*stride|.*padding|.*dilation)\b.* must be "):
        ops.deform_conv2d(**(good() | change))


@pytest.mark.parametrize(("name", "change"), [*ids(SHAPES), *ids(GEOMETRY), *ids(DTYPES)])
def test_bad_argument_is_named_for_meta_tensors(name, change, backend):
    """The shape function of the compiled operator has the same rules."""
    with pytest.raises(ERRORS, match=rf"deform_conv2d: (?:{name})\b.* must be "):
        ops.deform_conv2d(**moved(good() | change, "meta"))


@pytest.mark.parametrize(("name", "change"), [*ids(SHAPES), *ids(GEOMETRY)])
def test_bad_argument_is_named_where_a_gradient_is_wanted(name, change, backend):
    arguments = {
        key: value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value
        for key, value in (good() | change).items()
    }
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: (?:{name})\b.* must be "):
        ops.deform_conv2d(**arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["offset", "mask"])
@pytest.mark.parametrize("wrong", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_positions_beside_16_bit_are_of_its_dtype_or_float32(name, dtype, wrong, backend):
    arguments = good(dtype=dtype)
    arguments[name] = arguments[name].to(wrong)
    if wrong == dtype:
        assert ops.deform_conv2d(**arguments).dtype == dtype
    else:
        with pytest.raises(ERRORS, match=rf"^deform_conv2d: {name} is torch\.{str(wrong)[6:]}; it must be .*float32"):
            ops.deform_conv2d(**arguments)


@pytest.mark.parametrize("name", ["offset", "mask", "weight", "bias"])
def test_float64_input_wants_float64_everywhere(name, backend):
    arguments = good(dtype=torch.float64)
    arguments[name] = arguments[name].float()
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: {name}\b.*float64"):
        ops.deform_conv2d(**arguments)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["offset", "weight", "bias", "mask"])
@pytest.mark.parametrize("input_device", ["cpu", "cuda"])
def test_tensor_on_another_device(name, input_device, backend):
    other = "cuda" if input_device == "cpu" else "cpu"
    arguments = moved(good(), input_device)
    arguments[name] = arguments[name].to(other)
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: {name} is on {other}.*; it must be on .*{input_device}"):
        ops.deform_conv2d(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offset", tensor(2, 48, 6, 7), r"is of shape \(2, 48, 6, 7\); it must be .*Ho = 7, Wo = 7"),
        ("stride", (0, 1), r"is .*0.*; it must be at least 1"),
        ("weight", tensor(6, 4, 3, 2, dtype=torch.float64), r"is torch\.float64; it must be torch\.float32"),
        ("mask", [1.0], r"is list; it must be a torch\.Tensor or None"),
        ("bias", tensor(5), r"is of shape \(5,\); it must be .*6"),
    ],
    ids=["offset", "stride", "weight", "mask", "bias"],
)
def test_message_says_what_was_and_what_is_allowed(name, value, message, backend):
    with pytest.raises(TypeError if name == "mask" else ERRORS, match=f"{name} {message}"):
        ops.deform_conv2d(**(good() | {name: value}))
