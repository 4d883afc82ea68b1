"""The fused columns' gradient of a chunk on the CPU, with the gradients of offsets and masks, against float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import deform_arguments
from torch import Tensor

from resnet_cuda import reference

CASES = (
    # 130 pixels per image: tiles of 128 across the images, and a last one of 4; 24 of 64 output channels.
    DeformCase("tiles_across_images", 2, 64, 24, (10, 13)),
    DeformCase("v1_stride_2", 1, 64, 64, (21, 24), stride=(2, 2), mask=False, kernel=(2, 2)),
    DeformCase("as_many_slices_as_stages", 1, 128, 256, (7, 9), kernel=(1, 2)),
    DeformCase("256_columns", 1, 256, 136, (9, 15), kernel=(2, 1)),
    DeformCase("256_columns_64_empty", 1, 192, 65, (5, 6), kernel=(1, 2)),
    DeformCase("two_column_tiles", 1, 320, 16, (5, 6), kernel=(1, 2)),
    DeformCase("more_slices_than_stages", 1, 64, 264, (5, 6), kernel=(1, 3)),
    DeformCase("eight_slices", 1, 256, 512, (4, 5), kernel=(1, 2)),
    DeformCase("groups_2", 1, 128, 48, (9, 12), groups=2, kernel=(2, 2)),
    DeformCase("groups_2_offset_groups_4", 1, 256, 136, (7, 9), groups=2, offset_groups=4, kernel=(2, 2)),
    DeformCase("groups_2_offset_groups_3", 1, 384, 32, (5, 6), groups=2, offset_groups=3, kernel=(1, 2)),
    DeformCase("groups_4_offset_groups_2", 1, 256, 32, (5, 6), groups=4, offset_groups=2, kernel=(1, 2)),
    DeformCase("offset_groups_2_25_taps", 1, 128, 16, (8, 9), kernel=(5, 5), padding=(2, 2), offset_groups=2),
    DeformCase("two_pixels_per_image", 70, 64, 8, (3, 4), padding=(0, 0)),
    DeformCase("dilation", 1, 64, 7, (15, 4), padding=(2, 2), dilation=(2, 2), spread=9),
)
NAMED = {case.name: case for case in CASES}


def given(case: DeformCase, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor | None]:
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value is not None and value.dim() == 4 else value
        for name, value in deform_arguments(case, dtype).items()
        if name != "bias"
    }


def run(operator, case, arguments, *, store=True, wanted=("offset", "mask"), part=None) -> dict[str, Tensor]:
    """``columns`` and the gradients of offset and mask, NaN where nothing was written."""
    grads = {name: torch.full_like(arguments[name], float("nan")) for name in wanted if arguments[name] is not None}
    tensors = [arguments[name] for name in ("grad", "input", "weight", "offset", "mask")]
    geometry = [*case.stride, *case.padding, *case.dilation, case.offset_groups]
    part = part or [0, case.batch, 0, case.out_size[0]]
    columns = operator(*tensors, geometry, part, store, grads.get("offset"), grads.get("mask"))
    if store:
        taps = case.kernel[0] * case.kernel[1]
        grads["columns"] = columns.reshape(case.groups, -1, taps, case.channels // case.groups)
    return grads


def exact(case: DeformCase, arguments) -> dict[str, Tensor]:
    """The same in float64."""
    doubles = {name: None if value is None else value.double() for name, value in arguments.items()}
    grad = doubles.pop("grad")
    leaves = {
        name: value.requires_grad_()
        for name, value in doubles.items()
        if name in ("offset", "mask") and value is not None
    }
    reference.deform_conv2d(**doubles | leaves, **case.geometry).backward(grad)
    rows = grad.permute(0, 2, 3, 1).reshape(-1, case.groups, case.out_channels // case.groups)
    weight = doubles["weight"].reshape(case.groups, case.out_channels // case.groups, case.channels // case.groups, -1)
    columns = torch.einsum("pgo,goct->gptc", rows, weight)
    return {"columns": columns} | {name: leaf.grad for name, leaf in leaves.items()}


def check(found: dict[str, Tensor], right: dict[str, Tensor], names=("columns", "offset", "mask")) -> None:
    """Each is rounded once to its dtype, and else off by what float32 sums are."""
    for name in names:
        if name not in right:
            continue
        got, truth = found[name].double(), right[name]
        assert got.shape == truth.shape
        assert torch.equal(got.isnan(), truth.isnan()), f"gradient for {name} has NaN"
        half_unit = torch.finfo(found[name].dtype).eps / 2
        finite = truth.isfinite()
        size = truth[finite].square().mean().sqrt().item()
        off_by = ((got - truth)[finite].abs() - half_unit * truth[finite].abs()).max().item() / size
        assert off_by < 1e-4, f"gradient for {name} is off by {off_by}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_near_float64(column_gradient, case):
    arguments = given(case)
    check(run(column_gradient, case, arguments), exact(case, arguments))


@pytest.mark.parametrize("name", ["tiles_across_images", "256_columns", "more_slices_than_stages"])
def test_float16(column_gradient, name):
    case = NAMED[name]
    arguments = given(case, torch.float16)
    check(run(column_gradient, case, arguments), exact(case, arguments))


@pytest.mark.parametrize("name", ["256_columns", "more_slices_than_stages", "groups_2", "groups_4_offset_groups_2"])
def test_the_same_bits_in_any_order_of_threads(column_gradient, monkeypatch, name):
    case = NAMED[name]
    arguments = given(case)
    results = []
    for seed in range(4):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(run(column_gradient, case, arguments))
    for result in results[1:]:
        for kind, value in result.items():
            assert_bitwise_equal(value, results[0][kind], kind)


@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 7, 18])
def test_taps_of_a_block(column_gradient, monkeypatch, multiprocessors):
    """From all taps in a block to one, with a last block of fewer: the same bits."""
    case = NAMED["tiles_across_images"]
    arguments = given(case)
    expected = run(column_gradient, case, arguments)
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(multiprocessors))
    for kind, value in run(column_gradient, case, arguments).items():
        assert_bitwise_equal(value, expected[kind], kind)


@pytest.mark.parametrize("part", [(1, 2, 0, 9), (0, 1, 2, 3), (2, 1, 5, 1)], ids=["images", "rows", "last_row"])
def test_a_part_of_a_call(column_gradient, part):
    """Images of a batch or rows of an image: the same bits there, and nothing else is written."""
    case = replace(NAMED["groups_2_offset_groups_4"], batch=3, kernel=(1, 2))
    assert case.out_size == (9, 10)
    arguments = given(case)
    whole = run(column_gradient, case, arguments)
    found = run(column_gradient, case, arguments, part=list(part))
    images, rows = slice(part[0], part[0] + part[1]), slice(part[2], part[2] + part[3])
    columns = whole["columns"].unflatten(1, (case.batch, *case.out_size))[:, images, rows]
    assert_bitwise_equal(found["columns"], columns.flatten(1, 3), "columns")
    for name in ("offset", "mask"):
        expected = torch.full_like(whole[name], float("nan"))
        expected[images, :, rows] = whole[name][images, :, rows]
        assert_bitwise_equal(found[name], expected, name)


@pytest.mark.parametrize("wanted", [(), ("offset",), ("mask",)], ids=str)
@pytest.mark.parametrize("store", [True, False])
def test_only_what_is_asked_for(column_gradient, wanted, store):
    case = NAMED["two_column_tiles"]
    arguments = given(case)
    whole = run(column_gradient, case, arguments)
    found = run(column_gradient, case, arguments, store=store, wanted=wanted)
    assert set(found) == {*wanted, *(["columns"] if store else [])}
    for name, value in found.items():
        assert_bitwise_equal(value, whole[name], name)


def test_float32_positions_and_contiguous_layouts(column_gradient):
    case = NAMED["groups_2"]
    arguments = given(case)
    arguments |= {name: arguments[name].float().contiguous() for name in ("offset", "mask")}
    arguments["weight"] = arguments["weight"].contiguous()
    check(run(column_gradient, case, arguments), exact(case, arguments))


def test_border_positions(column_gradient):
    """At whole numbers, and at exactly -1, the derivative is the right-hand one."""
    case = NAMED["tiles_across_images"]
    arguments = given(case)
    arguments["offset"].zero_()
    check(run(column_gradient, case, arguments), exact(case, arguments))


def test_far_positions_and_nan(column_gradient):
    case = NAMED["groups_2"]
    arguments = given(case)
    for index, value in enumerate((float("inf"), float("-inf"), 1e30, -1e30)):
        arguments["offset"][0, index, 0, 0] = value
    arguments["offset"][0, 4, 2, 3] = float("nan")
    found, right = run(column_gradient, case, arguments), exact(case, arguments)
    check(found, right, ["columns"])
    assert found["offset"].isnan().nonzero().tolist() == [[0, 4, 2, 3], [0, 5, 2, 3]]
    assert found["mask"].isnan().nonzero().tolist() == [[0, 2, 2, 3]]
    assert not found["offset"][0, :4, 0, 0].any() and not found["mask"][0, :2, 0, 0].any()
