"""The CUDA deformable convolution on the CPU, forward and backward, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from emulation.autograd import deform_conv2d_of
from emulation.build import LONG_LIST
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME, DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import assert_deform_run_close, cast, deform_arguments, run

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SOME = ("plain", "v1", "groups_2_offset_groups_3", "groups_32", "kernel_2x4", "channels_33_to_17", "channels_64_to_64")


def laid_out(arguments, layout: str):
    """Images in one layout, and weights and positions with them."""
    return {
        name: value.contiguous(memory_format=LAYOUTS[layout]) if value is not None and value.dim() == 4 else value
        for name, value in arguments.items()
    }


def check(emulated, case, arguments, **options):
    got = run(deform_conv2d_of(emulated), arguments, **case.geometry)
    assert_deform_run_close(got, arguments, case, **options)


# Every case, the layouts in turn; what is not in SOME has no more of them.
@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_values_and_gradients(emulated, case):
    layout = list(LAYOUTS)[DEFORM_CASES.index(case) % 2]
    check(emulated, case, laid_out(deform_arguments(case, torch.float32), layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SOME)
def test_dtypes_and_layouts(emulated, name, dtype, layout):
    case = DEFORM_CASES_BY_NAME[name]
    check(emulated, case, laid_out(deform_arguments(case, dtype), layout))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wide", [("offset",), ("mask",), ("offset", "mask")], ids="+".join)
def test_float32_positions_beside_16_bit(emulated, wide, dtype):
    case = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]
    arguments = deform_arguments(case, dtype)
    arguments |= {name: arguments[name].float() for name in wide}
    check(emulated, case, arguments)


@pytest.mark.parametrize("images", LAYOUTS)
@pytest.mark.parametrize("others", LAYOUTS)
@pytest.mark.parametrize("grad", LAYOUTS)
def test_layouts_that_differ(emulated, images, others, grad):
    case = DEFORM_CASES_BY_NAME["channels_17_to_33"]
    arguments = deform_arguments(case, torch.float32)
    mixed = laid_out(arguments, others)
    mixed |= {"input": laid_out(arguments, images)["input"], "grad": laid_out(arguments, grad)["grad"]}
    check(emulated, case, mixed)


@pytest.mark.parametrize("shift", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_input_that_is_not_aligned(emulated, dtype, shift):
    """A view into another tensor: packs are then narrower."""
    case = DEFORM_CASES_BY_NAME["channels_64_to_64"]
    arguments = laid_out(deform_arguments(case, dtype), "channels_last")
    input = arguments["input"]
    room = torch.empty(input.numel() + shift, dtype=dtype)
    view = torch.as_strided(room, input.shape, input.stride(), shift)
    view.copy_(input)
    check(emulated, case, arguments | {"input": view})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_bias_that_is_not_aligned(emulated, dtype):
    """Added element by element, not pack by pack; the sums are the same."""
    case = DEFORM_CASES_BY_NAME["channels_64_to_64"]
    arguments = deform_arguments(case, dtype)
    function = deform_conv2d_of(emulated)
    expected = run(function, arguments, **case.geometry)
    room = torch.empty(case.out_channels + 1, dtype=dtype)
    room[1:] = arguments["bias"]
    got = run(function, arguments | {"bias": room[1:]}, **case.geometry)
    assert_bitwise_equal(got.output, expected.output, "output")


@pytest.mark.parametrize("bias", ["aligned", "shifted", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["channels_64_to_64", "channels_17_to_33"])
def test_relu_in_the_epilogue(emulated, name, dtype, bias):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = laid_out(deform_arguments(case, dtype), "channels_last")
    arguments["offset"][0, 2, 1, 1] = float("nan")
    input, weight, offset, mask, added = (arguments[key] for key in ("input", "weight", "offset", "mask", "bias"))
    room = torch.zeros(case.out_channels + 1, dtype=dtype)
    room[1:] = added
    added = {"aligned": added, "shifted": room[1:], None: None}[bias]
    geometry = (*case.stride, *case.padding, *case.dilation)
    expected = emulated.deform_conv2d(input, weight, offset, mask, added, *geometry)
    assert (expected < 0).any() and expected.isnan().any()
    found = emulated.deform_conv2d_relu(input, weight, offset, mask, added, *geometry)
    assert_bitwise_equal(found, expected.relu(), "output")


def test_border_positions(emulated):
    """All at exactly -1, H or W, as in every training run that starts from zero offsets."""
    case = DEFORM_CASES_BY_NAME["offset_groups_2"]
    arguments = deform_arguments(case, torch.float64)
    arguments["offset"].zero_()
    check(emulated, case, arguments)


def test_far_positions_and_nan(emulated):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, torch.float32)
    for index, value in enumerate((float("inf"), float("-inf"), 1e30, -1e30, 2.0**31, -(2.0**63))):
        arguments["offset"][0, index, 0, 0] = value
    arguments["offset"][1, 4, 2, 3] = float("nan")  # tap 2, vertical
    clean = arguments | {"offset": arguments["offset"].nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9)}
    function = deform_conv2d_of(emulated)
    got, expected = (run(function, one, **case.geometry) for one in (arguments, clean))
    assert got.output.isnan().nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[1, 2, 3]]
    keep = ~got.output.isnan()
    assert torch.equal(got.output[keep], expected.output[keep])
    assert got.gradients["offset"].isnan().nonzero().tolist() == [[1, 4, 2, 3], [1, 5, 2, 3]]
    assert got.gradients["mask"].isnan().nonzero().tolist() == [[1, 2, 2, 3]]
    # A NaN position has no pixel to pass a gradient to.
    assert_bitwise_equal(got.gradients["input"], expected.gradients["input"], "input")
    assert got.gradients["weight"].isnan().nonzero()[:, 2:].unique(dim=0).tolist() == [[0, 2]]


def onto_one_pixel(case: DeformCase, dtype: torch.dtype):
    """Every tap of every pixel reads around (3.25, 2.5): four lists hold everything."""
    arguments = deform_arguments(case, dtype)
    rows, columns = torch.arange(case.out_size[0]), torch.arange(case.out_size[1])
    offset = arguments["offset"].unflatten(1, (-1, *case.kernel, 2))
    for tap_row in range(case.kernel[0]):
        for tap_column in range(case.kernel[1]):
            place_y = rows - case.padding[0] + tap_row
            place_x = columns - case.padding[1] + tap_column
            offset[:, :, tap_row, tap_column, 0] = (3.25 - place_y)[:, None]
            offset[:, :, tap_row, tap_column, 1] = 2.5 - place_x
    return arguments


BATCHES = DeformCase("batches", batch=7, channels=16, out_channels=8, size=(7, 7), kernel=(1, 1), padding=(0, 0))
LONG = DeformCase("long_lists", batch=1, channels=24, out_channels=4, size=(11, 12), offset_groups=2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_offsets_onto_one_pixel(emulated, monkeypatch, dtype, layout):
    """More entries in a list than one group of threads sums (build.py), and more such lists than blocks."""
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    check(emulated, LONG, laid_out(onto_one_pixel(LONG, dtype), layout))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_lists_around_the_length_of_long_ones(emulated, more):
    """Exactly one of the two ways of summing takes each."""
    count = LONG_LIST + more
    # One row of `count` outputs, all at the pixel (3, 2).
    case = DeformCase("exact", batch=1, channels=8, size=(5, count), kernel=(1, 1), stride=(5, 1), padding=(0, 0))
    assert case.out_size == (1, count)
    arguments = deform_arguments(case, torch.float32)
    arguments["offset"][:, 0] = 3
    arguments["offset"][:, 1] = 2 - torch.arange(count)
    check(emulated, case, arguments)


@pytest.mark.parametrize("make", [deform_arguments, onto_one_pixel])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_several_batches_of_lists(emulated, dtype, make):
    """Several chunks in each (test_input_lists.py knows), the last one smaller; ordinary lists and long ones."""
    check(emulated, BATCHES, make(BATCHES, dtype))


def test_two_packs_per_entry(emulated):
    """Rows of 64 float32 are two packs for each of 8 threads; here long lists too, and two slices."""
    case = DeformCase("two_packs", batch=1, channels=256, out_channels=4, size=(5, 9), offset_groups=2)
    for make in (deform_arguments, onto_one_pixel):
        check(emulated, case, laid_out(make(case, torch.float32), "channels_last"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [3, 5, 13])
def test_the_weight_gradient_is_rounded_once(emulated, dtype, batch):
    """Over several chunks, as many as there is room for products, and more. Small integers make all else exact."""
    case = DeformCase("chunks", batch=batch, channels=16, out_channels=4, size=(9, 8))
    arguments = laid_out(deform_arguments(case, dtype), "channels_last")
    arguments["offset"].zero_()
    arguments["mask"].fill_(1)
    arguments |= {name: (16 * arguments[name]).round().clamp(-64, 64) for name in ("input", "grad")}
    function = deform_conv2d_of(emulated)
    got = run(function, arguments, ["weight"], **case.geometry).gradients["weight"]
    exact = run(function, cast(arguments, torch.float64), ["weight"], **case.geometry).gradients["weight"]
    assert exact.abs().max() > 2 / torch.finfo(dtype).eps
    assert_bitwise_equal(got, exact.to(dtype), "weight")


def test_long_lists_of_several_images(emulated):
    """All in one chunk, each with long lists of its own."""
    case = DeformCase("long_lists_of_images", batch=3, channels=2, size=(7, 7), kernel=(1, 1), padding=(0, 0))
    check(emulated, case, onto_one_pixel(case, torch.float32))


def test_long_lists_of_many_rows(emulated):
    """266 in one chunk, more than the threads that look through them at a time."""
    geometry = {"size": (7, 6), "kernel": (1, 1), "padding": (6, 4)}
    case = DeformCase("long_lists_of_many_rows", batch=1, channels=1, out_channels=1, **geometry)
    check(emulated, case, onto_one_pixel(case, torch.float32))


@pytest.mark.parametrize("make", [deform_arguments, onto_one_pixel])
def test_bitwise_equal_whatever_the_order_of_threads(emulated, monkeypatch, make):
    case = LONG
    arguments = make(case, torch.float32)
    runs = []
    for seed in ("3", "4"):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", seed)
        runs.append(run(deform_conv2d_of(emulated), arguments, **case.geometry))
    first, second = runs
    assert_bitwise_equal(second.output, first.output, "output")
    for key, gradient in first.gradients.items():
        assert_bitwise_equal(second.gradients[key], gradient, key)


@pytest.mark.parametrize("asked", ["input", "offset", "weight", "bias", "mask"])
@pytest.mark.parametrize("name", ["groups_2_offset_groups_4", "channels_64_to_64"])
def test_only_the_gradient_asked_for(emulated, name, asked):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, torch.float32)
    function = deform_conv2d_of(emulated)
    got = run(function, arguments, [asked], **case.geometry)
    everything = run(function, arguments, **case.geometry)
    assert [key for key, gradient in got.gradients.items() if gradient is not None] == [asked]
    assert_bitwise_equal(got.gradients[asked], everything.gradients[asked], asked)


def test_empty_batch(emulated):
    case = DEFORM_CASES_BY_NAME["plain"]
    arguments = deform_arguments(case, torch.float32)
    for key in ("input", "offset", "mask", "grad"):
        arguments[key] = arguments[key][:0]
    got = run(deform_conv2d_of(emulated), arguments, **case.geometry)
    assert got.output.shape == (0, case.out_channels, *case.out_size)
    for key in ("weight", "bias"):
        assert torch.equal(got.gradients[key], torch.zeros_like(arguments[key]))
