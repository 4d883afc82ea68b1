"""Each bad argument of Winograd's convolution raises an error that names it, however the operator is called."""

import pytest
import torch
from helpers.bad_arguments import ERRORS, ids, moved, tensor, wrong_tensors

from resnet_cuda import reference
from resnet_cuda.ops.conv2d_winograd import conv2d_winograd, winograd_weight

GOOD = {"input": (2, 3, 4, 5), "weight": (36, 2, 3, 32), "bias": (40,), "residual": (2, 40, 4, 5)}
SHAPES, DTYPES, NO_TENSORS = wrong_tensors(
    GOOD,
    shapes={
        "input": [(3, 4, 5), (2, 3), (2, 3, 4, 5, 1), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)],
        # Of an F(2x2, 3x3), of another O and C, of no transform.
        "weight": [(16, 2, 3, 32), (36, 1, 3, 32), (36, 3, 3, 32), (36, 2, 4, 32), (36, 2, 3, 40), (40, 3, 3, 3), ()],
        "bias": [(39,), (64,), (1,), (), (1, 40)],
        "residual": [(40, 4, 5), (1, 40, 4, 5), (2, 1, 4, 5), (2, 40, 5, 4), (2, 40, 2, 3), (2, 64, 4, 5)],
    },
    dtypes={
        "input": "float64 int64 complex64",
        "weight": "float64 bfloat16 int32",
        "bias": "float64 float16 int64",
        "residual": "float64 bfloat16 int64",
    },
)
for optional in ("bias", "residual"):
    del NO_TENSORS[f"{optional} None"]
BAD = SHAPES | DTYPES
ON_META = {f"{name} on meta": (name, tensor(*GOOD[name], device="meta")) for name in ("weight", "bias", "residual")}
NUMBERS = {
    "out_channels 0": ("out_channels", 0),
    "out_channels -1": ("out_channels", -1),
    "padding 3": ("padding", (1, 3)),
    "padding -1": ("padding", (-1, 1)),
}
PYTHON_ONLY = {
    "out_channels None": ("out_channels", None),
    "out_channels 40.0": ("out_channels", 40.0),
    "padding 1.0": ("padding", 1.0),
    "padding of three": ("padding", (1, 1, 1)),
    "relu 1": ("relu", 1),
    "relu 'False'": ("relu", "False"),
}


def good():
    tensors = {name: torch.randn(shape) for name, shape in GOOD.items()}
    return tensors | {"out_channels": 40, "relu": True, "padding": (1, 1)}


def registered_arguments(arguments):
    names = ("input", "weight", "out_channels", "bias", "residual", "relu")
    return (*(arguments[name] for name in names), *arguments["padding"])


def test_the_good_arguments_are_good(backend):
    assert conv2d_winograd(**good()).shape == (2, 40, 4, 5)
    assert conv2d_winograd(**good() | {"bias": None, "residual": None, "padding": 0}).shape == (2, 40, 2, 3)


@pytest.mark.parametrize(("name", "value"), ids(BAD | ON_META | NUMBERS | PYTHON_ONLY | NO_TENSORS))
def test_bad_argument_is_named(name, value, backend):
    for function in (conv2d_winograd, reference.conv2d_winograd):
        with pytest.raises(ERRORS, match=rf"^conv2d_winograd: {name}\b.* must be "):
            function(**(good() | {name: value}))


@pytest.mark.parametrize(("name", "value"), ids(BAD | ON_META | NUMBERS))
def test_registered_operator_names_the_bad_argument(name, value, registered):
    with pytest.raises(ERRORS, match=rf"conv2d_winograd: {name}\b.* must be "):
        torch.ops.resnet_cuda.conv2d_winograd(*registered_arguments(good() | {name: value}))


@pytest.mark.parametrize(("name", "value"), ids(BAD | NUMBERS))
def test_bad_argument_is_named_for_meta_tensors(name, value, backend):
    for function in (conv2d_winograd, lambda **arguments: conv2d_winograd_fake(arguments)):
        with pytest.raises(ERRORS, match=rf"conv2d_winograd: {name}\b.* must be "):
            function(**moved(good() | {name: value}, "meta"))


def conv2d_winograd_fake(arguments):
    return torch.ops.resnet_cuda.conv2d_winograd(*registered_arguments(arguments))


def test_too_small_an_image(backend):
    for size, padding in (((1, 5), (0, 1)), ((4, 2), (1, 0))):
        arguments = good() | {"input": torch.randn(2, 3, *size), "residual": None, "padding": padding}
        with pytest.raises(ERRORS, match=rf"conv2d_winograd: input is of size {size[0]}x{size[1]}; it must be large"):
            conv2d_winograd(**arguments)


def test_message_says_what_was_and_what_is_allowed(backend):
    with pytest.raises(ERRORS, match=r"bias is of shape \(39,\); it must be \(O,\) = \(40,\)"):
        conv2d_winograd(**good() | {"bias": tensor(39)})
    packed = r"as winograd_weight returns it, \(36, ceil\(O/32\), C, 32\) = \(36, 2, 3, 32\)"
    with pytest.raises(ERRORS, match=rf"weight is of shape .*; it must be {packed}"):
        conv2d_winograd(**good() | {"weight": tensor(36, 2, 4, 32)})
    with pytest.raises(ERRORS, match=r"residual is torch\.float64; it must be torch\.float32"):
        conv2d_winograd(**good() | {"residual": good()["residual"].double()})


@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 3, 3, 1), (4, 3, 5, 5), (0, 3, 3, 3), (4, 0, 3, 3)], ids=str)
def test_weights_of_another_convolution(shape):
    with pytest.raises(ValueError, match=r"^winograd_weight: weight is of shape .*; it must be 4-D, \(O, C, 3, 3\)"):
        winograd_weight(torch.zeros(shape))


def test_weights_that_are_no_floats():
    with pytest.raises(ValueError, match="^winograd_weight: weight is torch.int64; it must be one of torch.float64"):
        winograd_weight(torch.zeros(4, 3, 3, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="^winograd_weight: weight is list; it must be a torch.Tensor"):
        winograd_weight([])
