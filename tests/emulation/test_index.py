"""The kernels' index arithmetic, also for numbers larger than any tensor that a test could hold, and position types."""

from __future__ import annotations

import random

import pytest
import torch

LARGEST = 2**63 - 1
DIVISORS = (
    *range(1, 20),
    *(1050, 2047, 2048, 4200),
    *(power + step for power in (2**16, 2**31, 2**32, 2**53, 2**62) for step in (-1, 0, 1)),
    *(LARGEST - 1, LARGEST),
)


@pytest.mark.parametrize("divisor", DIVISORS)
def test_division(index_operators, divisor):
    generator = random.Random(divisor)
    numerators = {0, 1, 2, LARGEST, LARGEST - 1}
    for _ in range(200):
        number = generator.getrandbits(generator.randint(1, 63))
        multiple = number // divisor * divisor
        numerators |= {number, multiple, multiple + divisor - 1, max(multiple - 1, 0)}
    numerators = sorted(number for number in numerators if number <= LARGEST)
    quotients, remainders = index_operators.divide(torch.tensor(numerators), divisor).tolist()
    assert quotients == [number // divisor for number in numerators]
    assert remainders == [number % divisor for number in numerators]


LARGEST_32 = 2**31 - 1


@pytest.mark.parametrize("divisor", [divisor for divisor in DIVISORS if divisor <= LARGEST_32] + [2**30 + 1])
def test_division_of_32_bits(index_operators, divisor):
    generator = random.Random(divisor)
    numerators = {0, 1, 2, LARGEST_32, LARGEST_32 - 1}
    for _ in range(400):
        number = generator.getrandbits(generator.randint(1, 31))
        multiple = number // divisor * divisor
        numerators |= {number, multiple, multiple + divisor - 1, max(multiple - 1, 0)}
    numerators = sorted(number for number in numerators if number <= LARGEST_32)
    quotients, remainders = index_operators.divide32(torch.tensor(numerators), divisor).tolist()
    assert quotients == [number // divisor for number in numerators]
    assert remainders == [number % divisor for number in numerators]


# Below, at and above one and two strips of 8 rows.
@pytest.mark.parametrize("height", [1, 7, 8, 9, 15, 16, 17, 50])
@pytest.mark.parametrize("width", [1, 4, 5, 84])
def test_strips(index_operators, height, width):
    """Every pixel once: strips of 8 rows from the top, columns from the left, rows from the top."""
    places = index_operators.strips(torch.empty(0), height, width).tolist()
    expected = [
        [row, column]
        for first in range(0, height, 8)
        for column in range(width)
        for row in range(first, min(first + 8, height))
    ]
    assert places == expected


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("step", [1, 8, 2048, 2_162_688, 3 * 2**31 + 5])
@pytest.mark.parametrize(
    ("channels", "plane"), [(1, 8), (5, 15), (64, 1050), (1, 2**30 - 1), (2**30 - 1, 9), (2**30 - 1, 2**30 - 1)]
)
def test_walk(index_operators, channels, plane, step, wide):
    places = index_operators.walk(torch.empty(0), channels, plane, step, 50, wide).tolist()
    assert places == [[element // plane % channels, element % plane] for element in range(0, 50 * step, step)]


@pytest.mark.parametrize(("channels", "plane"), [(3, 2**31 + 7), (2**33 + 1, 5), (2, 2**40)])
def test_walk_over_sizes_beyond_32_bits(index_operators, channels, plane):
    step = 2**39 + 12345
    places = index_operators.walk(torch.empty(0), channels, plane, step, 50, True).tolist()
    assert places == [[element // plane % channels, element % plane] for element in range(0, 50 * step, step)]


WAVE = 132 * 4  # blocks of 256 threads that an H200 runs at once
# At, below and above: one block; a pack per thread of a wave; four of them; four rounds of 4, 3 or 2 in flight.
BLOCKS = (
    *((packs, 4, blocks) for packs, blocks in ((0, 1), (1, 1), (255, 1), (256, 1), (257, 2), (512, 2), (513, 3))),
    *((WAVE * 256 + step, 4, WAVE if step > -256 else WAVE - 1) for step in (-256, -255, 0, 1)),
    *((4 * WAVE * 256 + step, 4, WAVE) for step in (-1, 0, 1)),
    *((16 * WAVE * 256 + step, 4, WAVE if step <= 0 else 2 * WAVE) for step in (-1, 0, 1)),
    *((12 * WAVE * 256 + step, 3, WAVE if step <= 0 else 2 * WAVE) for step in (-1, 0, 1)),
    *((8 * WAVE * 256 + step, 2, WAVE if step <= 0 else 2 * WAVE) for step in (-1, 0, 1)),
    (2**40, 4, 2 * WAVE),
)


@pytest.mark.parametrize(("packs", "in_flight", "blocks"), BLOCKS)
def test_blocks_of_frozen_bn(index_operators, packs, in_flight, blocks):
    assert index_operators.frozen_bn_blocks(torch.empty(0), packs, in_flight, 132) == blocks


@pytest.mark.parametrize("multiprocessors", [1, 4, 30, 148])
def test_blocks_of_frozen_bn_follow_the_multiprocessors(index_operators, multiprocessors):
    """A tensor that one wave takes whole gets that wave; one of many rounds gets two."""
    of = index_operators.frozen_bn_blocks
    assert of(torch.empty(0), 4 * multiprocessors * 1024, 4, multiprocessors) == 4 * multiprocessors
    assert of(torch.empty(0), 2**30, 4, multiprocessors) == 8 * multiprocessors


@pytest.mark.parametrize(
    ("packs", "channels", "fit"),
    [
        (2**30 - 1, 64, True),
        (2**30, 2**27, True),
        (2**30 + 1, 64, False),
        (2**28, 2**27 - 1, True),
        (2**28, 2**27 + 1, False),
        (0, 1, True),
    ],
)
def test_sizes_that_frozen_bn_counts_in_32_bits(index_operators, packs, channels, fit):
    assert index_operators.frozen_bn_indices_fit(torch.empty(0), packs, channels) == fit


# Thousandths of the workspace: a call, an image, all output pixels of an image, sums of an image taken in parts; sums
# of a call, lists of an image, lists of all its rows.
NEEDS = (
    (20, 10, 100, 0, 0, 0, 0),
    (20, 10, 690, 200, 0, 0, 0),
    (200, 200, 3000, 100, 0, 0, 0),
    (700, 10, 300, 0, 0, 0, 0),
    (5, 1100, 4000, 700, 0, 0, 0),
    (10, 0, 290, 100, 150, 95, 90),
    (10, 0, 580, 100, 40, 93, 90),
    (100, 20, 150, 100, 280, 60, 60),
    (50, 100, 800, 150, 100, 500, 500),
    (50, 0, 100, 10, 50, 900, 900),
)


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize(("batch", "size"), [(1, (100, 16)), (8, (50, 8)), (13, (25, 4))])
def test_chunks(index_operators, batch, size, needs):
    """They stay within the workspace where what cannot be divided leaves room, and are never so small as to idle."""
    pixels = size[0] * size[1]
    workspace = index_operators.chunk(torch.empty(0), 1, 1, 1, 0, 0, 1, 0, 0, 0, 0)[3].item()
    per_call, per_image, all_pixels, divided, sums, image_lists, all_rows = (
        thousandths * workspace // 1000 for thousandths in needs
    )
    per_pixel = max(1, all_pixels // pixels)
    row_lists = all_rows // size[0]
    sizes = (batch, *size, per_call, per_image, per_pixel, divided, sums, image_lists, row_lists)
    images, rows, list_images, _ = index_operators.chunk(torch.empty(0), *sizes).tolist()
    chunk_bytes = images * rows * size[1] * per_pixel
    for_chunk = workspace // 4 * 3
    if rows == size[0]:
        assert list_images % images == 0
        assert images <= list_images < batch + images
        chunk_total = per_call + images * per_image + chunk_bytes
        total = chunk_total + sums + list_images * image_lists
    else:
        assert images == list_images == 1
        chunk_total = per_call + per_image + divided + chunk_bytes
        total = chunk_total + sums + rows * row_lists
        row_bytes = size[1] * per_pixel + row_lists
        assert rows * row_bytes + row_bytes >= min(for_chunk // 4, size[0] * row_bytes) // 2
    if per_call <= for_chunk // 2 and per_image + divided <= for_chunk // 4:
        assert chunk_total <= for_chunk
        if per_call + sums <= workspace // 2:
            assert total <= workspace


@pytest.mark.parametrize("lists", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 9, 50])
def test_chunks_at_their_budgets(index_operators, batch, lists):
    """What fits exactly is taken, and with a byte more one image fewer: neither one too many nor one too few."""
    workspace = index_operators.chunk(torch.empty(0), 1, 1, 1, 0, 0, 1, 0, 0, 0, 0)[3].item()
    generator = random.Random(batch)
    exact = 0
    for _ in range(3000):
        per_call, sums = (generator.randint(0, workspace // 3) for _ in range(2))
        sums = sums if lists else 0
        chunk_budget = max(workspace // 4 * 3 - per_call, workspace // 4 * 3 // 2)
        budget = max(workspace - per_call - sums, workspace // 2)
        # About as large as a whole number of images allows.
        image = chunk_budget // generator.randint(1, 9) + generator.randint(-1, 1)
        image_lists = generator.randint(1, max(1, budget // generator.randint(1, 30))) if lists else 0
        if lists and generator.random() < 0.5 and budget > image:
            image_lists = (budget - image) // generator.randint(1, 9) + generator.randint(-1, 1)
        if image < 1 or image_lists < lists:
            continue
        numbers = (batch, 10, 1, per_call, image - 10, 1, 0, sums, image_lists, 0)
        images, rows, list_images, _ = index_operators.chunk(torch.empty(0), *numbers).tolist()
        fitting = [n for n in range(1, batch + 1) if n * image <= chunk_budget and n * (image + image_lists) <= budget]
        if not fitting:
            assert images == list_images == 1
            continue
        assert rows == 10
        chunks = -(-batch // fitting[-1])
        assert images == -(-batch // chunks)
        most = [n for n in range(1, chunks + 1) if images * image + n * images * image_lists <= budget][-1]
        batches = -(-chunks // most)
        assert list_images == images * (-(-chunks // batches) if lists else 1)
        exact += chunk_budget % image == 0 or (budget - image) % max(image_lists, 1) == 0
    assert exact > 20


REAL, HALF, BFLOAT16 = range(3)  # PositionType
OFFSET_TYPES = (
    (torch.float32, torch.float32, REAL),
    (torch.float32, torch.bfloat16, REAL),
    (torch.float64, torch.float64, REAL),
    (torch.float16, torch.float16, HALF),
    (torch.bfloat16, torch.float32, BFLOAT16),
)


@pytest.mark.parametrize(("offset", "input", "expected"), OFFSET_TYPES)
def test_position_types(index_operators, offset, input, expected):
    assert index_operators.type_of_offset(torch.empty(1, dtype=offset), torch.empty(1, dtype=input)) == expected


@pytest.mark.parametrize(
    ("offset", "input"),
    [(torch.float8_e4m3fn, torch.float32), (torch.float64, torch.float32), (torch.float32, torch.float64)],
)
def test_a_position_type_without_a_kernel_is_an_error(index_operators, offset, input):
    """Whatever checks.h lets through: read as another type, positions would be garbage."""
    with pytest.raises(RuntimeError, match=rf"(?i)offset is {offset}\b.*; it must be {input}, torch.float16 or"):
        index_operators.type_of_offset(torch.empty(1, dtype=offset), torch.empty(1, dtype=input))


# C2 to C5 of 800x1344 and of 480x640, FPN's levels, and one tile.
LAYERS = ((200, 336, 64), (100, 168, 128), (50, 84, 256), (25, 42, 512), (30, 40, 256), (15, 20, 512), (4, 4, 40))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_threads_of_winograd(index_operators, layer):
    """No thread has two parts, and no other division has a cheaper largest part, by the cost model of the source."""
    tiles, panels = -(-layer[0] // 4) * -(-layer[1] // 4), -(-layer[2] // 32)
    steps = -(-tiles // 12)
    for strip in (24, 48):

        def cost(tile_parts: int, panel_parts: int, strip: int = strip) -> int:
            part = -(-steps // tile_parts) * 12
            outputs = -(-panels // panel_parts) * 32
            return part * outputs // 16 + part // 2 + -(-part // strip) * outputs // 2

        for threads in range(1, 65):
            found = index_operators.winograd_division(torch.empty(0), *layer, threads, strip).tolist()
            assert found[0] * found[1] <= threads
            others = [cost(threads // parts, parts) for parts in range(1, min(threads, panels) + 1)]
            assert cost(*found) == min(others), f"{threads} threads"
