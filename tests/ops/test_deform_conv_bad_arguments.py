"""Each documented bad argument of deform_conv2d raises an error that names it, on every implementation."""

import pytest
import torch
from helpers.bad_deform_arguments import DEVICES, DTYPES, ERRORS, GEOMETRY, HUGE, NO_TENSORS, SHAPES, good, ids, tensor

from resnet_cuda import ops, reference

BAD = [*ids(SHAPES), *ids(GEOMETRY), *ids(DTYPES), *ids(NO_TENSORS), *ids(DEVICES)]


def test_the_good_arguments_are_good(backend):
    assert ops.deform_conv2d(**good()).shape == (2, 6, 7, 7)
    assert reference.deform_conv2d(**good()).shape == (2, 6, 7, 7)


@pytest.mark.parametrize(("name", "change"), BAD)
def test_bad_argument_is_named(name, change, backend):
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: (?:{name})\b.* must be "):
        ops.deform_conv2d(**(good() | change))


@pytest.mark.parametrize(("name", "change"), BAD)
def test_bad_argument_is_named_by_the_reference(name, change):
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: (?:{name})\b.* must be "):
        reference.deform_conv2d(**(good() | change))


@pytest.mark.parametrize("change", HUGE, ids=str)
def test_huge_geometry_is_an_error(change, backend):
    with pytest.raises(ERRORS, match=r"^deform_conv2d: (?:input|offset|.*stride|.*padding|.*dilation)\b.* must be "):
        ops.deform_conv2d(**(good() | change))


@pytest.mark.parametrize(("name", "change"), [*ids(SHAPES), *ids(GEOMETRY), *ids(DTYPES)])
def test_bad_argument_is_named_for_meta_tensors(name, change, backend):
    """The shape function of the compiled operator has the same rules."""
    arguments = {
        key: value.to("meta") if isinstance(value, torch.Tensor) else value for key, value in (good() | change).items()
    }
    with pytest.raises(ERRORS, match=rf"deform_conv2d: (?:{name})\b.* must be "):
        ops.deform_conv2d(**arguments)


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU that torch can use")
@pytest.mark.parametrize("name", ["offset", "weight", "bias", "mask"])
@pytest.mark.parametrize("input_device", ["cpu", "cuda"])
def test_tensor_on_another_device(name, input_device, backend):
    arguments = {
        key: value.to(input_device) if isinstance(value, torch.Tensor) else value for key, value in good().items()
    }
    arguments[name] = arguments[name].to("cuda" if input_device == "cpu" else "cpu")
    with pytest.raises(ERRORS, match=rf"^deform_conv2d: {name}\b.*device"):
        ops.deform_conv2d(**arguments)


def test_message_says_what_was_and_what_is_allowed(backend):
    """Spelled out for one argument of each kind."""
    with pytest.raises(ERRORS, match=r"offset is of shape \(2, 48, 6, 7\); it must be .*Ho = 7, Wo = 7"):
        ops.deform_conv2d(**(good() | {"offset": tensor(2, 48, 6, 7)}))
    with pytest.raises(ERRORS, match=r"stride is .*0.*; it must be at least 1"):
        ops.deform_conv2d(**(good() | {"stride": (0, 1)}))
    with pytest.raises(ERRORS, match=r"weight is torch\.float64; it must be torch\.float32"):
        ops.deform_conv2d(**(good() | {"weight": good()["weight"].double()}))
    with pytest.raises(TypeError, match=r"mask is list; it must be a torch\.Tensor or None"):
        ops.deform_conv2d(**(good() | {"mask": [1.0]}))
    with pytest.raises(ERRORS, match=r"bias is of shape \(5,\); it must be .*6"):
        ops.deform_conv2d(**(good() | {"bias": tensor(5)}))
