"""The registered operators, without the Python in front: bad arguments raise, nothing is read out of bounds."""

import pytest
import torch
from helpers.bad_arguments import ERRORS, ids, tensor
from helpers.bad_deform_arguments import DEVICES, DTYPES, GEOMETRY, GOOD, HUGE, SHAPES, good

pytestmark = pytest.mark.usefixtures("registered")

PAIRS = ("stride", "padding", "dilation")
# The operators' schemas take whole pairs of ints; other kinds of values stop at the dispatcher.
NUMBERS = {
    name: entry
    for name, entry in GEOMETRY.items()
    if all(
        isinstance(value, tuple) and len(value) == 2 and set(map(type, value)) == {int} for value in entry[1].values()
    )
}
BAD = [*ids(SHAPES), *ids(DTYPES), *ids(DEVICES), *ids(NUMBERS)]
# rank; other numbers of images, of channels, of pixels
WRONG_GRADIENTS = [(6, 7, 7), (1, 6, 7, 7), (3, 6, 7, 7), (0, 6, 7, 7), (2, 5, 7, 7), (2, 8, 7, 7)]
WRONG_GRADIENTS += [(2, 6, 6, 7), (2, 6, 7, 8), (2, 6, 1, 1)]
BAD_GRADIENTS = {str(shape): tensor(*shape) for shape in WRONG_GRADIENTS} | {
    "float64": tensor(2, 6, 7, 7, dtype=torch.float64),
    "int32": tensor(2, 6, 7, 7, dtype=torch.int32),
    "on meta": tensor(2, 6, 7, 7, device="meta"),
}


def forward(arguments):
    tensors = [arguments[name] for name in ("input", "weight", "offset", "mask", "bias")]
    return torch.ops.resnet_cuda.deform_conv2d(*tensors, *(number for name in PAIRS for number in arguments[name]))


def backward(arguments, grad):
    tensors = [grad, *(arguments[name] for name in ("input", "weight", "offset", "mask"))]
    numbers = [number for name in PAIRS for number in arguments[name]]
    return torch.ops.resnet_cuda.deform_conv2d_backward(*tensors, *numbers, True, True, True, True, True)


def test_the_good_arguments_are_good():
    assert forward(good()).shape == (2, 6, 7, 7)
    gradients = backward(good(), tensor(2, 6, 7, 7))
    assert [gradient.shape for gradient in gradients] == [
        GOOD[name] for name in ("input", "weight", "offset", "mask", "bias")
    ]


@pytest.mark.parametrize(("name", "change"), BAD)
def test_forward_names_the_bad_argument(name, change):
    with pytest.raises(ERRORS, match=rf"deform_conv2d: (?:{name})\b.* must be "):
        forward(good() | change)


@pytest.mark.parametrize(("name", "change"), [entry for entry in BAD if entry.values[0] != "bias"])
def test_backward_names_the_bad_argument(name, change):
    """Whatever gradient comes along: bad arguments imply no output size that it could be held to."""
    for grad in (tensor(2, 6, 7, 7), tensor(1, 1, 1, 1)):
        with pytest.raises(ERRORS, match=rf"deform_conv2d: (?:{name}|grad)\b.* must be "):
            backward(good() | change, grad)


# In 64 bit 2 * (2**63 - 1) is -2 and 4 * 2**62 is 0: without checks the output sizes come out small and plausible.
WRAPPING = [
    {"padding": (2**63 - 1, 2**63 - 1), "offset": tensor(2, 48, 3, 3), "mask": tensor(2, 24, 3, 3)},
    {
        "dilation": (2**62, 2**62),
        "weight": tensor(6, 4, 5, 5),
        "offset": tensor(2, 200, 9, 8),
        "mask": tensor(2, 100, 9, 8),
    },
]


@pytest.mark.parametrize(
    "change", HUGE + WRAPPING, ids=lambda change: str({n: change[n] for n in PAIRS if n in change})
)
def test_huge_geometry_is_an_error(change):
    arguments = good() | change
    with pytest.raises(ERRORS, match=r"deform_conv2d: .* must be "):
        forward(arguments)
    with pytest.raises(ERRORS, match=r"deform_conv2d: .* must be "):
        backward(arguments, tensor(2, 6, *arguments["offset"].shape[2:]))


@pytest.mark.parametrize("size", [(2**31, 6), (7, 2**31)], ids=str)
def test_a_side_that_32_bits_cannot_count_is_an_error(size):
    """Before anything of that size is made: the input here is one number, repeated."""
    arguments = good() | {"input": tensor(1).expand(2, 8, *size)}
    for call in (forward, lambda arguments: backward(arguments, tensor(2, 6, 7, 7))):
        with pytest.raises(ERRORS, match=r"deform_conv2d: input .* must be .* H and W below 2\^31"):
            call(arguments)


@pytest.mark.parametrize("grad", BAD_GRADIENTS.values(), ids=BAD_GRADIENTS.keys())
def test_backward_names_a_bad_gradient(grad):
    with pytest.raises(ERRORS, match=r"deform_conv2d: (?:grad|.*on meta).* must be "):
        backward(good(), grad)


@pytest.mark.parametrize("name", ["input", "weight", "offset"])
def test_none_for_a_tensor_is_an_error(name):
    with pytest.raises(ERRORS):
        forward(good() | {name: None})
    with pytest.raises(ERRORS):
        backward(good() | {name: None}, tensor(2, 6, 7, 7))


def test_gradient_for_a_mask_that_is_not_there_is_empty():
    gradients = backward(good() | {"mask": None}, torch.ones(2, 6, 7, 7))
    assert gradients[3].shape == (0,)
    assert all(gradient.any() for gradient in gradients[:3])


def test_sparse_tensors_are_refused():
    with pytest.raises((*ERRORS, NotImplementedError)):
        forward(good() | {"input": good()["input"].to_sparse()})


def test_a_kernel_of_2_31_rows_is_refused():
    """Expanded, so without memory. Its size in pixels would overflow 64 bits."""
    arguments = good() | {"weight": tensor(1, 1, 1, 1).expand(1, GOOD["input"][1], 2**34, 1), "dilation": (2**30, 1)}
    with pytest.raises(RuntimeError, match="deform_conv2d: weight is of shape .*; it must be of kh, kw below 2"):
        forward(arguments)
