"""Values and gradients at the borders at which SampleColumns and PositionGradients divide their work."""

from __future__ import annotations

import pytest
import torch
from emulation.autograd import deform_conv2d_of
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import assert_deform_run_close, deform_arguments, run

KERNELS = {9: (3, 3), 10: (2, 5), 19: (1, 19)}
PADDINGS = {9: (1, 1), 10: (1, 2), 19: (0, 9)}


MULTIPROCESSORS = (1, 4, 64)


@pytest.fixture(params=MULTIPROCESSORS)
def multiprocessors(request, monkeypatch) -> int:
    """Few take all taps and channels in a block; many divide both."""
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(request.param))
    return request.param


def in_channels_last(case: DeformCase, dtype: torch.dtype):
    """So that no copy of an image takes room, and packs have their full width."""
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value is not None and value.dim() == 4 else value
        for name, value in deform_arguments(case, dtype).items()
    }


def check(emulated, case: DeformCase, dtype: torch.dtype = torch.float32) -> None:
    arguments = in_channels_last(case, dtype)
    assert_deform_run_close(run(deform_conv2d_of(emulated), arguments, **case.geometry), arguments, case)


def case_of(taps: int, packs: int, *, pack: int = 4, groups: int = 1, offset_groups: int = 1, **others) -> DeformCase:
    """``packs`` in an offset group, of ``pack`` channels each."""
    others = {"batch": 1, "size": (2, 11), "out_channels": groups} | others
    return DeformCase(
        f"{taps}_taps_{packs}_packs",
        channels=packs * pack * offset_groups,
        kernel=KERNELS[taps],
        padding=PADDINGS[taps],
        groups=groups,
        offset_groups=offset_groups,
        **others,
    )


# Below, at and above the taps of a block; the packs of one, of a pair per thread, of one slice and of two.
@pytest.mark.parametrize("taps", KERNELS)
@pytest.mark.parametrize("packs", [7, 8, 9, 15, 16, 17, 32, 33])
@pytest.mark.usefixtures("multiprocessors")
def test_taps_and_packs(emulated, packs, taps):
    check(emulated, case_of(taps, packs))


# Weight groups of 5, 8, 1, 16 and 11 packs.
@pytest.mark.parametrize("taps", KERNELS)
@pytest.mark.parametrize(("packs", "groups"), [(15, 3), (16, 2), (17, 17), (32, 2), (33, 3)])
@pytest.mark.usefixtures("multiprocessors")
def test_weight_groups(emulated, packs, groups, taps):
    check(emulated, case_of(taps, packs, groups=groups))


# One weight group of two offset groups; two of three.
@pytest.mark.parametrize("taps", [9, 10])
@pytest.mark.parametrize(
    ("packs", "groups", "offset_groups"), [(16, 1, 2), (17, 1, 2), (15, 1, 3), (16, 2, 3), (9, 3, 2)]
)
@pytest.mark.usefixtures("multiprocessors")
def test_offset_groups(emulated, packs, groups, offset_groups, taps):
    check(emulated, case_of(taps, packs, groups=groups, offset_groups=offset_groups, size=(1, 7)))


@pytest.mark.parametrize(
    ("dtype", "pack"), [(torch.float16, 8), (torch.bfloat16, 8), (torch.float64, 2), (torch.float32, 1)], ids=str
)
@pytest.mark.parametrize("packs", [15, 16, 17, 32])
@pytest.mark.usefixtures("multiprocessors")
def test_packs_of_other_dtypes(emulated, packs, dtype, pack):
    check(emulated, case_of(10, packs, pack=pack, size=(1, 9)), dtype)


# Below, at and above the pixels of a block, in a row, which is always one chunk at least.
@pytest.mark.parametrize("taps", KERNELS)
@pytest.mark.parametrize("width", [31, 32, 33, 65])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.usefixtures("multiprocessors")
def test_last_block_of_a_row(emulated, groups, width, taps):
    check(emulated, case_of(taps, 16, groups=groups, size=(1, width)))


# Output pixels of all images of a call: 32 n - 1, 32 n, 32 n + 1. Blocks straddle images; strips of 8 rows are followed
# by one of 7, 1, 3 or 5 rows or by none.
FEW_PIXELS = ((3, (7, 3)), (4, (8, 2)), (7, (9, 1)), (3, (11, 1)), (5, (13, 1)), (2, (16, 2)))
PIXELS = (*FEW_PIXELS, (5, (9, 5)), (5, (17, 3)), (25, (9, 1)))


SEVERAL_IMAGES = [(8, *pixels) for pixels in PIXELS] + [(64, *pixels) for pixels in FEW_PIXELS]


@pytest.mark.parametrize(("channels", "batch", "size"), SEVERAL_IMAGES)
@pytest.mark.usefixtures("multiprocessors")
def test_last_block_of_several_images(emulated, channels, batch, size):
    geometry = {"kernel": (1, 1), "padding": (0, 0)}
    check(emulated, DeformCase("pixels", batch=batch, channels=channels, out_channels=1, size=size, **geometry))


@pytest.mark.parametrize(("channels", "batch", "size"), SEVERAL_IMAGES)
def test_these_images_are_one_chunk(lists_operators, channels, batch, size):
    assert batch * size[0] * size[1] % 32 in (31, 0, 1)
    sizes = lists_operators.backward_sizes(torch.empty(0), batch, channels, 1, *size, 1, 0, 0)
    assert sizes.tolist()[:2] == [batch, size[0]]


def test_the_tests_divide_taps_and_channels_in_every_way(index_operators, monkeypatch):
    """With one row as a chunk: taps of a block of each kernel, and whole slices and halves."""
    sampled, summed = set(), set()
    for multiprocessors in MULTIPROCESSORS:
        monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(multiprocessors))
        for taps, kernel in KERNELS.items():
            for packs, width in ((15, 11), (33, 11), (16, 33)):
                sizes = (4 * packs, 1, 1, *kernel, 1, 1, width, 4, 16)
                of = index_operators.blocks_of_chunk
                sampled.add((taps, *of(torch.empty(0), *sizes, 0).tolist()[:2]))
                summed.add((taps, of(torch.empty(0), *sizes, 2).tolist()[0]))
    assert {(in_block, packs) for _, in_block, packs in sampled} >= {(9, 15), (3, 15), (1, 15), (9, 16), (1, 8)}
    assert {(taps, in_block) for taps, in_block, _ in sampled} >= {(9, 9), (10, 9), (19, 9)}
    assert summed >= {(9, 1), (10, 1), (19, 1), (9, 9), (10, 5), (19, 7)}


@pytest.mark.parametrize("taps", KERNELS)
@pytest.mark.parametrize(("packs", "groups"), [(16, 1), (33, 1), (16, 2)])
def test_how_the_work_is_divided_changes_no_bit(emulated, monkeypatch, packs, groups, taps):
    case = case_of(taps, packs, groups=groups)
    arguments = in_channels_last(case, torch.float32)
    runs = []
    for multiprocessors in MULTIPROCESSORS:
        monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(multiprocessors))
        runs.append(run(deform_conv2d_of(emulated), arguments, **case.geometry))
    for other in runs[1:]:
        assert_bitwise_equal(other.output, runs[0].output, "output")
        for name, gradient in runs[0].gradients.items():
            assert_bitwise_equal(other.gradients[name], gradient, name)


# Packs in pairs; packs one by one; one thread per row.
@pytest.mark.parametrize("channels", [64, 60, 3])
@pytest.mark.parametrize("axis", [0, 1], ids=["above", "left"])
@pytest.mark.usefixtures("multiprocessors")
def test_positions_of_exactly_minus_1_beside_an_infinite_pixel(emulated, channels, axis):
    """The sample is 0, not 0 times infinity, also where the weight's gradient samples again; it has derivatives."""
    geometry = {"kernel": (1, 1), "padding": (0, 0), "size": (6, 6)}
    case = DeformCase("border", batch=2, channels=channels, out_channels=2, **geometry)
    arguments = in_channels_last(case, torch.float32)
    # Row or column 3 of the outputs reads just above or left of the image, all others at (3.5, 2.5).
    position = torch.stack((torch.full((6, 6), 3.5), torch.full((6, 6), 2.5)))
    position[axis].select(axis, 3)[:] = -1
    places = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    arguments["offset"][:] = position - places
    arguments["grad"], arguments["weight"] = arguments["grad"].abs(), arguments["weight"].abs()
    finite = run(deform_conv2d_of(emulated), arguments, **case.geometry)
    assert_deform_run_close(finite, arguments, case)
    row, column = (0, 2) if axis == 0 else (3, 0)
    arguments["input"][:, :, row, column] = float("inf")
    got = run(deform_conv2d_of(emulated), arguments, **case.geometry)
    assert_bitwise_equal(got.output, finite.output, "output")
    for name in ("input", "weight", "bias", "mask"):
        assert finite.gradients[name].isfinite().all()
        assert_bitwise_equal(got.gradients[name], finite.gradients[name], name)
    # Across the border the derivative is the pixel's, as in torchvision; elsewhere it is what it was.
    beside = (position[axis] == -1).expand_as(got.gradients["offset"][:, axis])
    assert (got.gradients["offset"][:, axis][beside] == float("inf")).all()
    away = ~beside.unsqueeze(1).expand_as(arguments["offset"])
    assert_bitwise_equal(got.gradients["offset"][away], finite.gradients["offset"][away], "offset")
