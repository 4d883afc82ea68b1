"""The fused forward on the CPU, against float64 and beside the forward with columns, which is its fallback."""

from __future__ import annotations

import pytest
import torch
from emulation.autograd import deform_conv2d_of
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import forward_arguments
from torch import Tensor

from resnet_cuda import reference

VARIABLE = "RESNET_CUDA_FUSED_FORWARD"
TILES = "RESNET_CUDA_FUSED_TILES"
CASES = (
    # 130 pixels per image: tiles of 128 across the images, and a last one of 4.
    DeformCase("tiles_across_images", 2, 64, 128, (10, 13)),
    DeformCase("v1_stride_2", 1, 64, 24, (21, 24), stride=(2, 2), mask=False, bias=False),
    DeformCase("256_columns_some_empty", 1, 128, 136, (9, 11)),
    DeformCase("two_column_tiles", 1, 64, 264, (5, 6), kernel=(1, 2)),
    DeformCase("groups_2", 1, 128, 48, (9, 12), groups=2),
    DeformCase("groups_2_offset_groups_4", 1, 256, 32, (7, 9), groups=2, offset_groups=4, kernel=(2, 2)),
    DeformCase("offset_groups_2_25_taps", 1, 128, 16, (8, 9), kernel=(5, 5), padding=(2, 2), offset_groups=2),
    DeformCase("two_slices_of_10_taps", 1, 128, 8, (5, 6), kernel=(2, 5)),
    DeformCase("two_pixels_per_image", 70, 64, 8, (3, 4), padding=(0, 0), bias=False),
    DeformCase("dilation", 1, 64, 8, (15, 4), padding=(2, 2), dilation=(2, 2), spread=9),
)
NAMED = {case.name: case for case in CASES}
# Pixels, output channels, and parts of K, as many at most as it has steps. By specialised warps, and by the uniform
# kernel.
TILE_KINDS = ((128, 256, 1), (128, 128, 1), (64, 128, 1), (64, 128, 3), (64, 128, 8))
UNIFORM = ((128, 256, "1u"), (128, 128, "1u"), (64, 128, "1u"), (64, 128, "3u"))


def k_steps(case: DeformCase) -> int:
    """Of 16-bit types; TF32 has twice as many."""
    return case.kernel[0] * case.kernel[1] * max(case.channels // case.groups // 64, 1)


def tiles_text(kind: tuple[int, int, int | str], case: DeformCase) -> str:
    pixels, columns, splits = kind
    uniform = "u" if isinstance(splits, str) else ""
    return f"{pixels}x{columns}x{min(int(str(splits).rstrip('u')), k_steps(case))}{uniform}"


def given(case: DeformCase, dtype: torch.dtype) -> dict[str, Tensor | None]:
    arguments = forward_arguments(case, dtype)
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value is not None and value.dim() == 4 else value
        for name, value in arguments.items()
    }


@pytest.fixture
def both(emulated, monkeypatch):
    """``both(case, arguments)``: fused, by columns, and in float64 by the reference."""

    def call(case, arguments):
        function = deform_conv2d_of(emulated)
        monkeypatch.setenv(VARIABLE, "require")
        fused = function(**arguments, **case.geometry)
        monkeypatch.delenv(VARIABLE)
        columns = function(**arguments, **case.geometry)
        doubles = {name: value if value is None else value.double() for name, value in arguments.items()}
        return fused, columns, reference.deform_conv2d(**doubles, **case.geometry)

    return call


def check(fused: Tensor, columns: Tensor, exact: Tensor) -> None:
    assert fused.shape == exact.shape and fused.stride() == columns.stride()
    assert not fused.isnan().any(), "output has NaN"
    own, others = ((found.double() - exact).square().mean().sqrt().item() for found in (fused, columns))
    assert own <= 1.02 * others, f"output is off by {own}, by columns {others}"
    off_by = (fused.double() - columns.double()).abs().max().item()
    assert off_by <= 0.03 * exact.abs().max().item(), f"output is off by {off_by}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(both, case, dtype):
    check(*both(case, given(case, dtype)))


def error_of(fused: Tensor, case: DeformCase, arguments: dict[str, Tensor | None]) -> float:
    """Root mean square, relative to the result's in float64."""
    doubles = {name: value if value is None else value.double() for name, value in arguments.items()}
    exact = reference.deform_conv2d(**doubles, **case.geometry)
    assert not fused.isnan().any(), "output has NaN"
    return ((fused.double() - exact).square().mean() / exact.square().mean()).sqrt().item()


def check_near_float64(fused: Tensor, case: DeformCase, arguments: dict[str, Tensor | None]) -> None:
    """Samples and output are rounded to bfloat16."""
    off_by = error_of(fused, case, arguments)
    assert off_by < 2**-8, f"output is off by {off_by}"


@pytest.mark.parametrize("kind", [*TILE_KINDS, *UNIFORM], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_near_float64(emulated, monkeypatch, case, kind):
    """Alone, as the tests of planted bugs need it."""
    arguments = given(case, torch.bfloat16)
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(TILES, tiles_text(kind, case))
    check_near_float64(deform_conv2d_of(emulated)(**arguments, **case.geometry), case, arguments)


@pytest.mark.parametrize("kind", [TILE_KINDS[0], TILE_KINDS[3], *UNIFORM[:2]], ids=str)
@pytest.mark.parametrize("case", [*CASES, DeformCase("32_channels_per_group", 1, 64, 8, (3, 4), groups=2)], ids=str)
def test_tf32(emulated, monkeypatch, case, kind):
    """Samples and weight are rounded to TF32, by 2**-11 at most: together less than that, but not by nothing."""
    arguments = given(case, torch.float32)
    monkeypatch.setenv(VARIABLE, "require-tf32")
    monkeypatch.setenv(TILES, tiles_text(kind, case))
    off_by = error_of(deform_conv2d_of(emulated)(**arguments, **case.geometry), case, arguments)
    assert 2**-15 < off_by < 2**-11, f"output is off by {off_by}"


def test_tf32_in_any_order_of_threads(emulated, monkeypatch):
    case = NAMED["groups_2"]
    arguments = given(case, torch.float32)
    monkeypatch.setenv(VARIABLE, "tf32")
    results = []
    for seed in range(3):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(deform_conv2d_of(emulated)(**arguments, **case.geometry))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0], "output")
    monkeypatch.setenv(VARIABLE, "1")
    assert not torch.equal(deform_conv2d_of(emulated)(**arguments, **case.geometry), results[0])


@pytest.mark.parametrize("kind", TILE_KINDS[1:3], ids=str)
def test_tf32_contiguous_input(emulated, monkeypatch, kind):
    case = NAMED["tiles_across_images"]
    arguments = given(case, torch.float32)
    monkeypatch.setenv(VARIABLE, "require-tf32")
    monkeypatch.setenv(TILES, tiles_text(kind, case))
    expected = deform_conv2d_of(emulated)(**arguments, **case.geometry)
    assert error_of(expected, case, arguments) < 2**-11
    output = deform_conv2d_of(emulated)(**arguments | {"input": arguments["input"].contiguous()}, **case.geometry)
    assert_bitwise_equal(output.contiguous(memory_format=torch.channels_last), expected, "output")


@pytest.mark.parametrize("kind", [*TILE_KINDS[:4], *UNIFORM], ids=str)
@pytest.mark.parametrize("pixels", [63, 64, 65, 127, 128, 129])
def test_pixels_around_those_of_a_tile(emulated, monkeypatch, pixels, kind):
    case = DeformCase("row", 1, 64, 136, (1, pixels), kernel=(1, 3), padding=(0, 1))
    arguments = given(case, torch.bfloat16)
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(TILES, tiles_text(kind, case))
    check_near_float64(deform_conv2d_of(emulated)(**arguments, **case.geometry), case, arguments)


@pytest.mark.parametrize("tiles", ["128x256x1", "128x256x1u", "64x128x3", "64x128x3u"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_same_bits_in_any_order_of_threads(emulated, monkeypatch, dtype, tiles):
    case = NAMED["256_columns_some_empty"]
    arguments = given(case, dtype)
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(TILES, tiles)
    results = []
    for seed in range(3):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(deform_conv2d_of(emulated)(**arguments, **case.geometry))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0], "output")


def test_tiles_of_another_size_sum_in_the_same_order(emulated, monkeypatch):
    """So only the parts of K, which follow from the batch and the GPU, change bits."""
    case = NAMED["two_column_tiles"]
    arguments = given(case, torch.bfloat16)
    monkeypatch.setenv(VARIABLE, "require")
    results = []
    for kind in (*TILE_KINDS[:3], UNIFORM[0]):
        monkeypatch.setenv(TILES, tiles_text(kind, case))
        results.append(deform_conv2d_of(emulated)(**arguments, **case.geometry))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0], "output")


def test_the_tiles_are_those_of_the_function(emulated, index_operators, monkeypatch):
    """4 multiprocessors, and 132: another number of parts of K, hence other bits."""
    case = NAMED["offset_groups_2_25_taps"]
    arguments = given(case, torch.float16)
    monkeypatch.setenv(VARIABLE, "require")
    results = []
    for multiprocessors in (4, 132):
        chosen = index_operators.fused_tiles(torch.empty(0), 72, 1, 16, k_steps(case), multiprocessors).tolist()
        monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(multiprocessors))
        own = deform_conv2d_of(emulated)(**arguments, **case.geometry)
        monkeypatch.setenv(TILES, "x".join(map(str, chosen)))
        assert_bitwise_equal(deform_conv2d_of(emulated)(**arguments, **case.geometry), own, "output")
        monkeypatch.delenv(TILES)
        results.append(own)
    assert not torch.equal(*results)


@pytest.mark.parametrize(
    "value",
    [
        "128x256",
        "128x256x2",
        "128x128x2",
        "64x256x1",
        "64x128x0",
        "64x128x-1",
        "64x128x4",
        "64x128x1x",
        "128x128x2u",
        "64x128x4u",
        "128x256x1uu",
        "128x256x1v",
        "0",
    ],
)
def test_other_tiles_are_an_error(emulated, monkeypatch, value):
    case = DeformCase("3_steps", 1, 64, 8, (3, 4), kernel=(1, 3))
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv(TILES, value)
    with pytest.raises(
        RuntimeError, match=f"{TILES} is '{value}'; it must be 128x256x1, 128x128x1 or 64x128x1 to 64x128x3, each also"
    ):
        deform_conv2d_of(emulated)(**given(case, torch.bfloat16), **case.geometry)


@pytest.mark.parametrize("tiles", ["128x256x1", "128x256x1u", "128x128x1u", "64x128x2", "64x128x2u"])
@pytest.mark.parametrize("bias", [True, False])
def test_relu_in_the_epilogue(emulated, monkeypatch, bias, tiles):
    case = NAMED["two_column_tiles"]
    arguments = given(case, torch.bfloat16)
    arguments["offset"][0, 1, 1, 1] = float("nan")
    if not bias:
        arguments["bias"] = None
    tensors = [arguments[name] for name in ("input", "weight", "offset", "mask", "bias")]
    geometry = (*case.stride, *case.padding, *case.dilation)
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(TILES, tiles)
    expected = emulated.deform_conv2d(*tensors, *geometry)
    assert (expected < 0).any() and expected.isnan().any()
    assert_bitwise_equal(emulated.deform_conv2d_relu(*tensors, *geometry), expected.relu(), "output")


def test_float32_positions_and_a_contiguous_weight(both):
    case = NAMED["groups_2"]
    arguments = given(case, torch.bfloat16)
    arguments |= {name: arguments[name].float().contiguous() for name in ("offset", "mask")}
    arguments["weight"] = arguments["weight"].contiguous()
    check(*both(case, arguments))


@pytest.mark.parametrize("kind", [*TILE_KINDS[:4], *UNIFORM], ids=str)
@pytest.mark.parametrize("name", ["tiles_across_images", "groups_2"])
def test_contiguous_input(emulated, monkeypatch, name, kind):
    """Transposed, image by image where the workspace holds no more; the output is contiguous. The same bits."""
    case = NAMED[name]
    arguments = given(case, torch.bfloat16)
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(TILES, tiles_text(kind, case))
    expected = deform_conv2d_of(emulated)(**arguments, **case.geometry)
    for names in (("input",), ("input", "offset", "mask")):
        contiguous = arguments | {name: arguments[name].contiguous() for name in names}
        output = deform_conv2d_of(emulated)(**contiguous, **case.geometry)
        assert output.is_contiguous()
        assert_bitwise_equal(output.contiguous(memory_format=torch.channels_last), expected, "output")


def test_contiguous_input_that_is_not_aligned(emulated, monkeypatch):
    case = NAMED["groups_2"]
    arguments = given(case, torch.bfloat16)
    monkeypatch.setenv(VARIABLE, "require")
    expected = deform_conv2d_of(emulated)(**arguments, **case.geometry)
    arguments["input"] = shifted(arguments["input"].contiguous())
    output = deform_conv2d_of(emulated)(**arguments, **case.geometry)
    assert_bitwise_equal(output.contiguous(memory_format=torch.channels_last), expected, "output")


def test_border_positions(both):
    case = NAMED["tiles_across_images"]
    arguments = given(case, torch.bfloat16)
    arguments["offset"].zero_()
    check(*both(case, arguments))


def test_far_positions_and_nan(both):
    case = NAMED["groups_2"]
    arguments = given(case, torch.bfloat16)
    for index, value in enumerate((float("inf"), float("-inf"), 1e30, -1e30)):
        arguments["offset"][0, index, 0, 0] = value
    arguments["offset"][0, 4, 2, 3] = float("nan")
    fused, columns, _ = both(case, arguments)
    assert torch.equal(fused.isnan(), columns.isnan())
    assert fused.isnan().nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[0, 2, 3]]


def test_no_images(emulated, monkeypatch):
    case = NAMED["groups_2"]
    arguments = given(case, torch.bfloat16)
    arguments |= {name: arguments[name][:0] for name in ("input", "offset", "mask")}
    monkeypatch.setenv(VARIABLE, "1")
    assert deform_conv2d_of(emulated)(**arguments, **case.geometry).shape == (0, 48, 9, 12)


def shifted(tensor: Tensor) -> Tensor:
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    view = torch.as_strided(room, tensor.shape, tensor.stride(), 1)
    return view.copy_(tensor)


UNFIT = {
    "float32": lambda a: {name: None if value is None else value.float() for name, value in a.items()},
    "input not aligned": lambda a: a | {"input": shifted(a["input"])},
    "bias not aligned": lambda a: a | {"bias": shifted(a["bias"])},
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_runs_by_columns(emulated, monkeypatch, name):
    case = DeformCase("small", 1, 64, 8, (3, 4))
    arguments = UNFIT[name](given(case, torch.bfloat16))
    function = deform_conv2d_of(emulated)
    expected = function(**arguments, **case.geometry)
    monkeypatch.setenv(VARIABLE, "1")
    assert_bitwise_equal(function(**arguments, **case.geometry), expected, "output")
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(RuntimeError, match="RESNET_CUDA_FUSED_FORWARD is 'require'"):
        function(**arguments, **case.geometry)


@pytest.mark.parametrize(
    "case",
    [
        DeformCase("96_channels", 1, 96, 8, (3, 4)),
        DeformCase("32_channels_per_group", 1, 64, 16, (3, 4), groups=2),
        DeformCase("32_channels_per_offset_group", 1, 64, 8, (3, 4), offset_groups=2),
        DeformCase("12_columns", 1, 64, 12, (3, 4)),
    ],
    ids=str,
)
def test_channels_that_do_not_fit(emulated, monkeypatch, case):
    arguments = given(case, torch.bfloat16)
    function = deform_conv2d_of(emulated)
    expected = function(**arguments, **case.geometry)
    monkeypatch.setenv(VARIABLE, "1")
    assert_bitwise_equal(function(**arguments, **case.geometry), expected, "output")
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(RuntimeError, match="RESNET_CUDA_FUSED_FORWARD is 'require'"):
        function(**arguments, **case.geometry)


def test_another_value_of_the_variable_is_an_error(emulated, monkeypatch):
    case = DeformCase("small", 1, 64, 8, (3, 4))
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(RuntimeError, match="RESNET_CUDA_FUSED_FORWARD is 'yes'; it must be 0, 1, require, tf32 or"):
        deform_conv2d_of(emulated)(**given(case, torch.bfloat16), **case.geometry)
