"""How SampleColumns and PositionGradients divide a chunk into blocks: arithmetic of the host, without a GPU."""

from __future__ import annotations

from itertools import product

import pytest
import torch

MOST_TAPS = 9  # kMostTapsPerBlock
MULTIPROCESSORS = 132  # of an H200


def ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def parts(operators, pixel_blocks: int, taps: int, packs: int, wanted: int, most_packs: int = 16) -> list[int]:
    return operators.parts_of_taps(
        torch.empty(0), pixel_blocks, taps, packs, most_packs // 2, most_packs, wanted
    ).tolist()


# Below, at and above the taps of one block and of two.
@pytest.mark.parametrize(
    ("taps", "in_block"), [(1, 1), (2, 2), (3, 3), (4, 4), (8, 8), (9, 9), (10, 9), (18, 9), (19, 9), (49, 9)]
)
# Below, at and above the packs of half a slice, of one and of two.
@pytest.mark.parametrize(
    ("packs", "in_slice"),
    [(1, 1), (7, 7), (8, 8), (9, 9), (15, 15), (16, 16), (17, 16), (31, 16), (32, 16), (33, 16)],
)
def test_parts_where_pixels_are_enough(index_operators, packs, in_slice, taps, in_block):
    assert parts(index_operators, 264, taps, packs, 264) == [in_block, in_slice]


def slices_of(packs: int, most_packs: int) -> list[int]:
    """The slices to be tried, the largest first: down to half of the most."""
    largest = min(packs, most_packs)
    return [largest, largest // 2] if largest // 2 >= most_packs // 2 else [largest]


def choices(taps: int, packs: int, most_packs: int) -> list[list[int]]:
    """Taps and packs in the order in which they are to be tried: fewer packs, then three taps, then one."""
    slices = slices_of(packs, most_packs)
    largest = min(taps, MOST_TAPS)
    return [[largest, it] for it in slices] + [[it, slices[-1]] for it in (3, 1) if it < largest]


@pytest.mark.parametrize("most_packs", [16, 64])
@pytest.mark.parametrize("packs", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 8, 9, 10, 18, 19])
def test_parts_around_the_blocks_that_are_wanted(index_operators, taps, packs, most_packs):
    """The first choice that gives as many blocks as wanted: with one block more wanted the next, one fewer the same."""
    tried = choices(taps, packs, most_packs)
    for pixel_blocks in (1, 5, 132):
        blocks = [pixel_blocks * ceil_div(taps, it) * ceil_div(packs, in_slice) for it, in_slice in tried]
        for wanted in {count + step for count in blocks for step in (-1, 0, 1)}:
            enough = [it for it, count in zip(tried, blocks, strict=True) if count >= wanted]
            expected = enough[0] if enough else tried[-1]
            assert parts(index_operators, pixel_blocks, taps, packs, wanted, most_packs) == expected, wanted


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 8, 9, 10, 18, 19, 49])
@pytest.mark.parametrize("wave", [1, 2, 8, 264])
def test_taps_of_waves(index_operators, wave, taps):
    """The least time, and of those that take it the fewest blocks; each number of pixel blocks around whole waves."""
    counts = {
        ceil_div(waves * wave, parts) + step
        for waves, parts in product((1, 2, 3), (1, 2, 3, taps))
        for step in (-1, 0, 1)
    }
    for pixel_blocks in counts - {0}:

        def time(in_block: int) -> int:
            waves = ceil_div(pixel_blocks * ceil_div(taps, in_block), wave)  # noqa: B023
            return waves * (in_block + 1)

        expected = min(range(1, min(taps, MOST_TAPS) + 1), key=lambda in_block: (time(in_block), -in_block))
        assert index_operators.taps_of_waves(torch.empty(0), pixel_blocks, taps, wave) == expected, pixel_blocks


# At and above one and two waves of blocks with nine taps, one with five, three, and with one.
@pytest.mark.parametrize(
    ("pixel_blocks", "taps"),
    [(264, 9), (265, 3), (528, 9), (529, 3), (132, 5), (133, 3), (88, 3), (89, 5), (29, 1), (30, 2)],
)
def test_taps_of_nine_in_a_wave_of_264(index_operators, pixel_blocks, taps):
    assert index_operators.taps_of_waves(torch.empty(0), pixel_blocks, 9, 264) == taps


def blocks_of(operators, chunk: dict, kernel=(3, 3), pack=8, pack_bytes=16, groups=(1, 1), at_once=0) -> list[int]:
    """Taps, packs, blocks and threads per row: of PositionGradients where `at_once` is given, else of SampleColumns."""
    sizes = (chunk["channels"], *groups, *kernel, chunk["images"], *chunk["size"], pack, pack_bytes, at_once)
    return operators.blocks_of_chunk(torch.empty(0), *sizes).tolist()


# Chunks of layers of ResNet at 800 x 1344 in bfloat16 (test_input_lists.py knows how many images of a batch of 8 they
# are); taps and packs of SampleColumns' blocks; taps of PositionGradients', of which two run on a multiprocessor.
LAYERS = {
    "C3": ({"channels": 128, "size": (100, 168), "images": 1}, (9, 16), 9),
    "C4": ({"channels": 256, "size": (50, 84), "images": 2}, (9, 16), 9),
    "C4, batch 1": ({"channels": 256, "size": (50, 84), "images": 1}, (9, 16), 5),
    "C5": ({"channels": 512, "size": (25, 42), "images": 4}, (9, 16), 5),
    "C5, batch 1": ({"channels": 512, "size": (25, 42), "images": 1}, (9, 8), 2),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_blocks_of_the_layers(index_operators, monkeypatch, layer):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(MULTIPROCESSORS))
    chunk, sampling, position_taps = LAYERS[layer]
    pixels = chunk["images"] * chunk["size"][0] * chunk["size"][1]
    pixel_blocks = ceil_div(pixels, 32)
    packs = chunk["channels"] // 8

    taps, in_slice, blocks, row_threads = blocks_of(index_operators, chunk)
    assert (taps, in_slice) == sampling
    assert blocks == pixel_blocks * ceil_div(9, taps) * ceil_div(packs, in_slice)
    assert blocks >= 2 * MULTIPROCESSORS
    assert row_threads == 8

    taps, in_slice, blocks, row_threads = blocks_of(index_operators, chunk, at_once=2)
    assert (taps, in_slice) == (position_taps, packs)
    assert blocks == pixel_blocks * ceil_div(9, taps)
    assert row_threads == 8


# Output pixels of a chunk below, at and above 32 and 64, over several images and in one.
@pytest.mark.parametrize(
    ("images", "size", "pixel_blocks"),
    [
        *(
            (1, (1, pixels), blocks)
            for pixels, blocks in ((1, 1), (31, 1), (32, 1), (33, 2), (63, 2), (64, 2), (65, 3))
        ),
        *((3, (7, 3), 2), (3, (11, 1), 2), (5, (13, 1), 3), (4, (8, 2), 2), (5, (9, 5), 8), (5, (17, 3), 8)),
    ],
)
@pytest.mark.parametrize("offset_groups", [1, 2, 3])
@pytest.mark.parametrize("at_once", [0, 2])
def test_every_pixel_has_a_block(index_operators, monkeypatch, at_once, offset_groups, images, size, pixel_blocks):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    chunk = {"channels": 24 * offset_groups, "size": size, "images": images}
    groups = (1, offset_groups)
    taps, packs, blocks, _ = blocks_of(index_operators, chunk, pack=4, groups=groups, at_once=at_once)
    assert packs == 6
    assert blocks == pixel_blocks * offset_groups * ceil_div(9, taps)


# Below, at and above 1, 2, 4 and 8 packs.
@pytest.mark.parametrize(
    ("packs", "threads"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (7, 8), (8, 8), (9, 8), (16, 8), (33, 8)]
)
@pytest.mark.parametrize("at_once", [0, 2])
def test_threads_of_a_row(index_operators, at_once, packs, threads):
    chunk = {"channels": 4 * packs, "size": (5, 5), "images": 1}
    assert blocks_of(index_operators, chunk, pack=4, at_once=at_once)[3] == threads


@pytest.mark.parametrize(("pack_bytes", "packs"), [(2, 128), (4, 64), (8, 32), (16, 16)])
def test_a_block_samples_256_bytes_of_a_row(index_operators, monkeypatch, pack_bytes, packs):
    """Where the blocks are enough, whatever the pack; half of it where they are one too few."""
    chunk = {"channels": 4096, "size": (32, 32), "images": 1}
    slices = 4096 // packs
    for multiprocessors, expected in ((32 * slices // 2, packs), (32 * slices // 2 + 1, packs // 2)):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", str(multiprocessors))
        assert blocks_of(index_operators, chunk, pack=1, pack_bytes=pack_bytes)[:2] == [9, expected]


MOST = 2**31 - 1
SIZES = ("C", "H", "W", "Ho", "Wo", "kh", "kw", "ph", "pw", "G")
SMALL = {"C": 1, "H": 1, "W": 1, "Ho": 1, "Wo": 1, "kh": 1, "kw": 1, "ph": 0, "pw": 0, "G": 1}
# The largest sizes, which of them must not grow, and the argument that the error names.
LARGEST = (
    ({"H": MOST}, "H", "input"),
    ({"W": MOST}, "W", "input"),
    ({"C": 64, "H": 5793, "W": MOST // 64 // 5793}, "W", "input"),
    ({"C": MOST // 8}, "C", "input"),
    ({"Wo": MOST // 36 // 32 * 32, "kh": 3, "kw": 3}, "Wo", "input"),
    ({"C": 4, "G": 4, "kw": MOST // 16 // 32}, "kw", "input"),
    ({"Ho": MOST // 7, "Wo": 7}, "Ho", "input"),
    ({"Ho": MOST}, "Ho", "input"),
    ({"H": 9, "ph": (MOST - 9) // 2}, "ph", "padding"),
    ({"W": 10, "pw": (MOST - 10) // 2}, "pw", "padding"),
)


@pytest.mark.parametrize(("sizes", "grown", "argument"), LARGEST)
def test_the_largest_sizes_that_32_bits_count(index_operators, sizes, grown, argument):
    """They are taken; one more is an error that names the argument and says what is allowed."""
    largest = SMALL | sizes
    index_operators.countable(torch.empty(0), [largest[name] for name in SIZES])
    larger = largest | {grown: largest[grown] + 1}
    with pytest.raises(RuntimeError, match=rf"(?s)deform_conv2d: {argument} is .*; it must be .*, on a GPU"):
        index_operators.countable(torch.empty(0), [larger[name] for name in SIZES])
