"""Winograd's convolution against the direct one in float64: sizes, borders, layouts, dtypes, threads, NaN."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import assert_bitwise_equal
from helpers.instruction_sets import LEVELS, run_at_level
from helpers.layouts import batch_last, channels_last, transposed
from helpers.winograd_problems import assert_close, direct, he_weight, problem

from resnet_cuda.ops.conv2d_winograd import conv2d_winograd, winograd_weight

PADDINGS = ((0, 0), (1, 1), (2, 2), (0, 1), (2, 0))


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_every_size(padding, backend):
    """One to three tiles and what is left of them, along both axes."""
    for height, width in itertools.product((1, 2, 3, 4, 5, 6, 7, 8, 9, 12), repeat=2):
        if height + 2 * padding[0] < 3 or width + 2 * padding[1] < 3:
            continue
        arguments, expected = problem(1, 3, 5, height, width, padding)
        assert_close(conv2d_winograd(**arguments), expected)


@pytest.mark.parametrize("channels", [1, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100])
def test_every_number_of_channels(channels, backend):
    for out_channels in (1, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129):
        arguments, expected = problem(2, channels, out_channels, 5, 7)
        assert_close(conv2d_winograd(**arguments), expected)


@pytest.mark.parametrize("size", [(1, 70, 66), (3, 29, 31), (70, 4, 5), (1, 4, 401), (1, 401, 2)], ids=str)
def test_many_strips_over_images(size, backend):
    batch, height, width = size
    arguments, expected = problem(batch, 19, 70, height, width)
    assert_close(conv2d_winograd(**arguments), expected)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_epilogues(bias, residual, relu, backend):
    options = {"bias": bias, "residual": residual, "relu": relu}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        arguments, expected = problem(2, 20, 36, 9, 6, dtype=dtype, **options)
        assert (expected < 0).any() != relu
        assert_close(conv2d_winograd(**arguments), expected, dtype)


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last": channels_last,
    "transposed": transposed,
    "batch_last": batch_last,
    "every_second": lambda tensor: torch.stack((tensor, tensor), -1)[..., 0],
    "negative": lambda tensor: torch.complex(tensor.float(), -tensor.float()).conj().imag.to(tensor.dtype),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, backend):
    """The same bits whatever the strides of each argument; the result is channels_last."""
    arguments, expected = problem(2, 19, 33, 6, 9)
    plain = conv2d_winograd(**arguments)
    assert_close(plain, expected)
    for argument in ("input", "residual", "weight", "bias"):
        value = LAYOUTS[name](arguments[argument])
        assert torch.equal(value, arguments[argument])
        got = conv2d_winograd(**arguments | {argument: value})
        assert_bitwise_equal(got, plain, argument)
        assert got.is_contiguous(memory_format=torch.channels_last)


def test_expanded_input_and_residual(backend):
    arguments, _ = problem(1, 5, 9, 6, 9)
    one = conv2d_winograd(**arguments)
    for name in ("input", "residual"):
        arguments[name] = arguments[name].expand(3, -1, -1, -1)
    result = conv2d_winograd(**arguments)
    if backend == "reference":  # torch's products, whose bits may depend on the batch
        copies = {name: arguments[name].contiguous() for name in ("input", "residual")}
        one = conv2d_winograd(**arguments | copies)
    for image, expected in zip(result, one.expand_as(result), strict=True):
        assert_bitwise_equal(image, expected, "image")


def test_empty_batch(backend):
    arguments, _ = problem(0, 5, 9, 6, 7)
    result = conv2d_winograd(**arguments)
    assert result.shape == (0, 9, 6, 7)
    assert conv2d_winograd(**arguments | {"padding": 0, "residual": None}).shape == (0, 9, 4, 5)


def test_no_memory_but_the_arguments_is_read(native):
    """The input lies between NaN, and every element of the result is written, even where that begins as NaN."""
    arguments, expected = problem(1, 17, 33, 10, 11)
    around = torch.full((3, 10, 11, 17), float("nan"))
    around[1] = arguments["input"][0].permute(1, 2, 0)
    arguments["input"] = around.permute(0, 3, 1, 2)[1:2]
    assert arguments["input"].is_contiguous(memory_format=torch.channels_last)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        assert_close(conv2d_winograd(**arguments), expected)
    finally:
        torch.use_deterministic_algorithms(False)


# Divided by tiles, by output channels, and by both.
@pytest.mark.parametrize("size", [(1, 40, 33, 50), (2, 128, 17, 20), (1, 320, 7, 7), (1, 16, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_with_any_number_of_threads(size, dtype, threads, native):
    batch, out_channels, height, width = size
    arguments, expected = problem(batch, 24, out_channels, height, width, dtype=dtype)
    threads(1)
    one = conv2d_winograd(**arguments)
    assert_close(one, expected, dtype)
    for count in (2, 3, 7):
        threads(count)
        for _ in range(3):
            assert_bitwise_equal(conv2d_winograd(**arguments), one, f"{count} threads")


def test_an_image_does_not_depend_on_its_batch(native):
    arguments, _ = problem(5, 24, 40, 13, 18)
    together = conv2d_winograd(**arguments)
    for image in range(5):
        alone = {name: arguments[name][image : image + 1] for name in ("input", "residual")}
        assert_bitwise_equal(conv2d_winograd(**arguments | alone)[0], together[image], f"image {image}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("pixel", [(0, 0), (5, 5), (8, 3), (10, 12)], ids=str)
def test_what_is_not_finite_reaches_its_tiles_only(value, pixel, backend):
    """No result that reads the pixel is finite, none of a tile that does not is changed; ReLU keeps NaN."""
    is_nan = value != value
    arguments, _ = problem(2, 6, 40, 11, 13, relu=is_nan)
    clean = conv2d_winograd(**arguments)
    arguments["input"][1, 2, pixel[0], pixel[1]] = value
    got = conv2d_winograd(**arguments)
    read = F.max_pool2d((~arguments["input"].isfinite()).any(1, keepdim=True).float(), 3, 1, 1).bool()
    rows, columns = (torch.arange(size) // 4 for size in (11, 13))
    tiles = torch.zeros(2, 1, 3, 4)
    tiles.index_put_(tuple((read.nonzero() // torch.tensor([1, 1, 4, 4])).T), torch.tensor(1.0))
    touched = tiles.bool()[:, :, rows][:, :, :, columns]
    reached = got[read.expand_as(got)]
    assert (reached.isnan() if is_nan else ~reached.isfinite()).all()
    assert torch.equal(got[~touched.expand_as(got)], clean[~touched.expand_as(got)])


def test_nan_in_bias_and_residual_stays_where_it_is(backend):
    arguments, _ = problem(1, 6, 40, 7, 6)
    clean = conv2d_winograd(**arguments)
    arguments["bias"][33] = float("nan")
    arguments["residual"][0, 5, 2, 3] = float("nan")
    got = conv2d_winograd(**arguments)
    expected = torch.zeros_like(got, dtype=torch.bool)
    expected[:, 33] = expected[0, 5, 2, 3] = True
    assert torch.equal(got.isnan(), expected)
    assert torch.equal(got[~expected], clean[~expected])


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_accuracy(channels, backend):
    """Relative to the results' root mean square, as after a ReLU with He weights. The direct convolution in float32,
    summed in one order, has 3e-7 to 8e-7."""
    arguments, expected = problem(1, channels, 64, 30, 30, bias=False, residual=False, relu=False)
    error = conv2d_winograd(**arguments).double() - expected
    scale = expected.square().mean().sqrt()
    assert error.square().mean().sqrt() < 3e-6 * scale
    assert error.abs().max() < 2.5e-5 * scale


def test_the_weight_is_rounded_once():
    kernel = he_weight(40, 12).double() + 1e-9
    once = winograd_weight(kernel)
    assert once.shape == (36, 2, 12, 32)
    assert once.dtype == torch.float32
    assert (once[:, 1, :, 8:] == 0).all()
    # At infinity the polynomial's value is its leading coefficient: the last element is the kernel's last.
    corner = once[35].transpose(0, 1).reshape(12, 64)[:, :40].T
    assert torch.equal(corner, kernel[:, :, 2, 2].float())
    exact = torch.tensor([1 / 0.75**2 / 1.5**2, *[0.0] * 2], dtype=torch.float64)
    first = torch.einsum("y,ocyx,x->oc", exact, kernel, exact)
    torch.testing.assert_close(once[0, 0].T.double(), first[:32], rtol=1e-7, atol=0)


def test_weights_of_other_dtypes(backend):
    kernel = he_weight(8, 6)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert torch.equal(winograd_weight(kernel.to(dtype)), winograd_weight(kernel.to(dtype).float()))


LOWER = """
import torch
from helpers.winograd_problems import assert_close, problem
from resnet_cuda import _extension, use_backend
from resnet_cuda.ops.conv2d_winograd import conv2d_winograd

use_backend("native")
torch.set_num_threads(1)
checked = 0
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for size in [(1, 3, 5, 1, 1), (2, 19, 70, 29, 31), (1, 16, 64, 8, 8), (1, 37, 129, 6, 3), (3, 4, 4, 4, 9)]:
        for options in ({}, dict(bias=False, residual=False, relu=False), dict(padding=(2, 0))):
            if size[4] < 3 and "padding" in options:
                continue
            arguments, expected = problem(*size, dtype=dtype, **options)
            assert_close(conv2d_winograd(**arguments), expected, dtype)
            checked += 1
print(_extension.cpu_capability(), checked)
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_instruction_sets(level, registered):
    assert int(run_at_level(level, LOWER)) == 42


def test_large_values_as_documented(backend):
    """Up to 1e34 no result overflows."""
    arguments, _ = problem(1, 6, 8, 9, 7, residual=False, relu=False, bias=False)
    arguments["input"] = (arguments["input"] > 0.5) * torch.tensor(1e34)
    kernel = he_weight(8, 6)
    arguments["weight"] = winograd_weight(kernel)
    got = conv2d_winograd(**arguments).double() / 1e34
    assert_close((got).float(), direct(arguments, kernel) / 1e34)
