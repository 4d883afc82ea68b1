"""The input lists of the CUDA backward: the transpose of the sampling matrix, computed here from the positions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from emulation.build import DIRECT_BOXES, LONG_LIST, TILE_HITS
from torch import Tensor

WARP = 32
STRIP_ROWS = 8


@dataclass(frozen=True)
class Geometry:
    """Sizes are (vertical, horizontal)."""

    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    offset_groups: int = 1
    batch: int = 2

    @property
    def numbers(self) -> list[int]:
        return [*self.size, *self.kernel, *self.stride, *self.padding, *self.dilation, self.offset_groups]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def base(self, dtype: torch.dtype) -> Tensor:
        """[taps, 2, Ho, Wo]: where the taps read without their offsets."""
        axes = [
            torch.arange(self.out[i])[None] * self.stride[i]
            - self.padding[i]
            + torch.arange(self.kernel[i])[:, None] * self.dilation[i]
            for i in range(2)
        ]
        shape = (*self.kernel, *self.out)
        y, x = axes[0][:, None, :, None].expand(shape), axes[1][None, :, None, :].expand(shape)
        return torch.stack((y, x), 2).flatten(0, 1).to(dtype)

    def random(self, spread: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (self.batch, self.offset_groups * self.taps, 2, *self.out)
        offset = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
        whole = torch.rand(shape, generator=generator) < 0.1  # weights of exactly 0
        return torch.where(whole, offset.round(), offset).flatten(1, 2).to(dtype)

    def onto(self, positions: Tensor) -> Tensor:
        """The offsets for these absolute positions, broadcast to [N, G, taps, 2, Ho, Wo]."""
        base = self.base(positions.dtype)
        return (positions - base).expand(self.batch, self.offset_groups, -1, -1, -1, -1).flatten(1, 3).contiguous()

    def mask(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (self.batch, self.offset_groups * self.taps, *self.out)
        mask = torch.rand(shape, generator=generator, dtype=torch.float64)
        return torch.where(mask < 0.1, 0.0, mask).to(dtype)


def in_strips(rows: int, columns: int) -> list[tuple[int, int]]:
    return [
        (row, column)
        for first in range(0, rows, STRIP_ROWS)
        for column in range(columns)
        for row in range(first, min(first + STRIP_ROWS, rows))
    ]


def expected_lists(geometry: Geometry, offset: Tensor, mask: Tensor | None, images: range, rows: range) -> list[list]:
    """By list, [offset group][image][pixel in strip order]: (row of the columns, weight) by (tap, pixel)."""
    height, width = geometry.size
    place = {pixel: index for index, pixel in enumerate(in_strips(height, width))}
    position = geometry.base(offset.dtype) + offset.unflatten(1, (geometry.offset_groups, -1, 2))
    corner = position.floor()
    fraction = (position - corner).tolist()
    position, corner = position.tolist(), corner.tolist()
    strips = in_strips(len(rows), geometry.out[1])
    lists = []
    for group in range(geometry.offset_groups):
        for image in images:
            begin = len(lists)
            lists += [[] for _ in place]
            for tap in range(geometry.taps):
                y, x = position[image][group][tap]
                for row, column in strips:
                    at = rows[0] + row
                    if not (-1 < y[at][column] < height and -1 < x[at][column] < width):
                        continue
                    top, left = (int(corner[image][group][tap][i][at][column]) for i in range(2))
                    down, right = (fraction[image][group][tap][i][at][column] for i in range(2))
                    value = 1.0 if mask is None else mask[image, group * geometry.taps + tap, at, column].item()
                    for i, vertical in enumerate((1 - down, down)):
                        for j, horizontal in enumerate((1 - right, right)):
                            pixel = place.get((top + i, left + j))
                            weight = vertical * horizontal * value
                            if pixel is not None and weight != 0:
                                lists[begin + pixel].append(
                                    ((row * geometry.out[1] + column) * geometry.taps + tap, weight)
                                )
    return lists


def built_lists(operators, geometry: Geometry, offset: Tensor, mask: Tensor | None, images: range, rows: range):
    """By list, as expected_lists; and the long ones."""
    where = (images[0], len(images), rows[0], len(rows))
    ranges, columns, weights, long_lists = operators.lists(offset, mask, geometry.numbers, *where)
    used = sorted((begin, begin + length) for begin, length in ranges.tolist() if length)
    assert [begin for begin, _ in used] == [0, *(end for _, end in used)][: len(used)], "ranges have gaps or overlap"
    assert sum(length for _, length in ranges.tolist()) == len(columns)
    columns, weights = columns.tolist(), weights.tolist()
    lists = [
        list(zip(columns[begin : begin + length], weights[begin : begin + length], strict=True))
        for begin, length in ranges.tolist()
    ]
    return lists, sorted(long_lists.tolist())


def check(operators, geometry: Geometry, offset: Tensor, mask: Tensor | None = None, images=None, rows=None) -> list:
    images = range(geometry.batch) if images is None else images
    rows = range(geometry.out[0]) if rows is None else rows
    expected = expected_lists(geometry, offset, mask, images, rows)
    lists, long_lists = built_lists(operators, geometry, offset, mask, images, rows)
    assert len(lists) == len(expected)
    tolerance = 1e-5 if offset.dtype == torch.float32 else 1e-12
    for number, (got, wanted) in enumerate(zip(lists, expected, strict=True)):
        assert [row for row, _ in got] == [row for row, _ in wanted], f"the lists differ: rows of list {number}"
        assert [weight for _, weight in got] == pytest.approx([weight for _, weight in wanted], abs=tolerance)
    assert long_lists == [number for number, wanted in enumerate(expected) if len(wanted) > LONG_LIST]
    return lists


# Around tiles of 8 x 8 and groups of 32 pixels.
SIZES = ((1, 1), (1, 31), (4, 8), (3, 11), (7, 9), (8, 8), (9, 7), (16, 17), (17, 16), (8, 64), (25, 9))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_inverse_of_the_taps(lists_operators, size, dtype):
    geometry = Geometry(size, size)
    offset = geometry.random(2, dtype=dtype)
    assert any(check(lists_operators, geometry, offset, geometry.mask(dtype=dtype)))


GEOMETRIES = (
    Geometry((13, 11), (7, 6), stride=(2, 2)),
    Geometry((12, 20), (13, 21), kernel=(2, 4), padding=(1, 2)),
    Geometry((9, 10), (9, 10), offset_groups=3),
    Geometry((10, 9), (10, 9), padding=(2, 2), dilation=(2, 2)),
    Geometry((11, 9), (11, 9), kernel=(1, 1), padding=(0, 0), batch=5),
)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_random_offsets(lists_operators, geometry, seed):
    check(lists_operators, geometry, geometry.random((0.5, 2, 8, 30)[seed], seed), geometry.mask(seed))


def test_some_images_and_rows(lists_operators):
    geometry = Geometry((14, 9), (14, 9), batch=5, offset_groups=2)
    offset, mask = geometry.random(2), geometry.mask()
    check(lists_operators, geometry, offset, mask, images=range(1, 4))
    check(lists_operators, geometry, offset, mask, images=range(4, 5), rows=range(5, 14))
    check(lists_operators, geometry, offset, mask, images=range(2, 3), rows=range(3, 4))


def test_offsets_uniform_over_the_image(lists_operators):
    geometry = Geometry((24, 40), (24, 40), batch=1)
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand((1, 1, 9, 2, 24, 40), generator=generator) * torch.tensor([26.0, 42.0])[:, None, None] - 1
    check(lists_operators, geometry, geometry.onto(positions))


def onto_one_pixel(geometry: Geometry, y: float, x: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return geometry.onto(torch.tensor([y, x], dtype=dtype)[:, None, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("more", [-1, 0, 1, 3 * TILE_HITS])
def test_hits_around_the_size_of_the_buffer(lists_operators, more, dtype):
    """All in one tile: they fit, just fit, and do not; then in four tiles."""
    hits = (TILE_HITS if dtype == torch.float32 else TILE_HITS // 2) + more
    geometry = Geometry((17, 18), (1, hits), kernel=(1, 1), padding=(0, 0), batch=1)
    lists = check(lists_operators, geometry, onto_one_pixel(geometry, 3.25, 2.5, dtype))
    assert sorted(map(len, lists))[-4:] == 4 * [hits]
    check(lists_operators, geometry, onto_one_pixel(geometry, 7.25, 7.5, dtype))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_lists_around_the_length_of_long_ones(lists_operators, more):
    geometry = Geometry((5, 6), (1, LONG_LIST + more), kernel=(1, 1), padding=(0, 0), batch=1)
    lists = check(lists_operators, geometry, onto_one_pixel(geometry, 3, 2))
    assert [length for length in map(len, lists) if length] == [LONG_LIST + more]


# Around the number of boxes from which on there are outer ones, and around 32 of those.
SMALL_KERNELS = [(1, DIRECT_BOXES + more) for more in (-1, 0, 1)] + [(33, 31), (32, 33), (11, 191)]
# Around one, two and three rounds of 1024 (InvertTaps::kRoundBoxes); two fit the buffer of kept boxes.
KERNELS = [(31, 33), (32, 32), (25, 41), (23, 89), (32, 64), (3, 683), (43, 50), (37, 83), (32, 96), (61, 51)]


@pytest.mark.parametrize("kernel", SMALL_KERNELS + KERNELS)
@pytest.mark.parametrize("near", [1.0, 0.5, 0.05])
def test_boxes_around_the_size_of_a_round(lists_operators, kernel, near):
    """One box per tap; with few taps near the image all hits fit the buffer, across rounds."""
    geometry = Geometry((6, 5), (1, 1), kernel=kernel, padding=(0, 0), batch=1)
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand((1, 1, geometry.taps, 2, 1, 1), generator=generator) * 7 - 1
    away = torch.rand((1, 1, geometry.taps, 1, 1, 1), generator=generator) >= near
    check(lists_operators, geometry, geometry.onto(torch.where(away, 1000.0, positions)))


@pytest.mark.parametrize("kernel", [(127, 258), (128, 256), (128, 257)])
def test_outer_boxes_around_the_size_of_a_round(lists_operators, kernel):
    """Just below, at and above 32 * 1024 boxes."""
    test_boxes_around_the_size_of_a_round(lists_operators, kernel, 0.01)


def test_every_place_around_a_tile(lists_operators):
    """One tap at a time, at each corner and edge: a box that is short on one side loses a hit."""
    steps = torch.tensor([-1.0, -0.75, 0.0, 6.5, 7.0, 7.25, 8.0, 8.5, 15.5, 16.0, 16.5])
    geometry = Geometry((17, 17), (11, 11), kernel=(1, 1), padding=(0, 0), batch=1)
    positions = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
    offset = geometry.onto(positions)
    check(lists_operators, geometry, offset)
    for row in range(11):
        for column in range(0, 11, 5):
            alone = torch.full_like(offset, 1e6)
            alone[..., row, column] = offset[..., row, column]
            check(lists_operators, geometry, alone)


def test_far_and_nan_positions(lists_operators):
    geometry = Geometry((9, 8), (9, 8), batch=1)
    offset = geometry.random(2)
    for index, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 2.0**31, -(2.0**31))):
        offset[0, index, index, 1] = value
    check(lists_operators, geometry, offset)


def test_a_mask_of_nan_has_entries(lists_operators):
    geometry = Geometry((4, 4), (4, 4), kernel=(1, 1), padding=(0, 0), batch=1)
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 2] = float("nan")
    lists, _ = built_lists(lists_operators, geometry, torch.full((1, 2, 4, 4), 0.5), mask, range(1), range(4))
    assert [[row for row, _ in entries] for entries in lists if entries] == 4 * [[1 * 4 + 2]]


def test_a_side_beyond_32767(lists_operators):
    geometry = Geometry((1, 33000), (1, 34), kernel=(1, 1), stride=(1, 1000), padding=(0, 0), batch=1)
    check(lists_operators, geometry, geometry.random(300))


def test_the_order_does_not_depend_on_the_seed(lists_operators, monkeypatch):
    geometry = Geometry((17, 18), (17, 18), batch=1)
    offsets = [geometry.random(2), onto_one_pixel(geometry, 7.25, 7.5)]
    for offset in offsets:
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", "0")
        first = built_lists(lists_operators, geometry, offset, None, range(1), range(17))
        for seed in ("1", "2"):
            monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", seed)
            assert built_lists(lists_operators, geometry, offset, None, range(1), range(17)) == first


# Channels, outputs, size, images per chunk, images per batch of lists: layers of ResNet at 800 x 1344, channels_last.
STAGES = {"C3": (128, 128, (100, 168), 1, 3), "C4": (256, 256, (50, 84), 2, 8), "C5": (512, 512, (25, 42), 4, 4)}


def sizes_of(
    operators,
    batch: int,
    channels: int,
    outputs: int,
    size,
    kernel: int = 3,
    copies=0,
    workspace=0,
    dtype=torch.bfloat16,
):
    sizes = (batch, channels, outputs, *size, kernel, copies, workspace)
    return operators.backward_sizes(torch.empty(0, dtype=dtype), *sizes).tolist()


@pytest.mark.parametrize("stage", STAGES)
def test_sizes_of_the_layers(lists_operators, stage):
    channels, outputs, size, images, list_images = STAGES[stage]
    workspace = 64 << 20
    got = sizes_of(lists_operators, 8, channels, outputs, size, workspace=workspace)
    assert got[:3] == [images, size[0], list_images]
    per_call, image, sums, lists = got[3:]
    assert per_call + sums + images * image + list_images * lists <= workspace
    assert per_call + images * image <= workspace // 4 * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_tests_take_several_batches_of_lists(lists_operators, dtype):
    """BATCHES of test_deform_conv.py: several chunks in a batch, several batches, the last one smaller."""
    copies = (8 + 2 * 16) * 49 * dtype.itemsize
    images, rows, list_images, *_ = sizes_of(lists_operators, 7, 16, 8, (7, 7), 1, copies, dtype=dtype)
    assert rows == 7
    assert images < list_images < 7
    assert 7 % list_images != 0
