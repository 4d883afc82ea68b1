"""Which tiles the fused forward takes, and how many parts of K: csrc/deform_conv_fused/cuda_forward_tiles.h."""

from __future__ import annotations

import pytest
import torch

# Output pixels of an image and channels of the deformable stages of an 800 x 1344 image, 3x3.
STAGES = {"C3": (100 * 168, 128), "C4": (50 * 84, 256), "C5": (25 * 42, 512)}
MULTIPROCESSORS = 132


@pytest.fixture
def tiles(index_operators):
    """``tiles(pixels, channels, steps)``: pixels, columns, parts of K."""

    def call(pixels, channels, steps, groups=1, multiprocessors=MULTIPROCESSORS):
        chosen = index_operators.fused_tiles(torch.empty(0), pixels, groups, channels, steps, multiprocessors)
        return tuple(chosen.tolist())

    return call


@pytest.mark.parametrize(
    ("stage", "batch", "expected"),
    [
        ("C3", 1, (128, 128, 1)),  # 132 blocks
        ("C4", 1, (64, 128, 1)),  # 132
        ("C5", 1, (64, 128, 3)),  # 204
        ("C3", 2, (128, 128, 1)),
        ("C4", 2, (128, 128, 1)),  # 132
        # 132 blocks of half the work of 68 of 128 x 128.
        ("C5", 2, (64, 128, 1)),
        ("C3", 8, (128, 128, 1)),
        ("C4", 8, (128, 256, 1)),
        ("C5", 8, (128, 256, 1)),
    ],
)
def test_stages(tiles, stage, batch, expected):
    pixels, channels = STAGES[stage]
    assert tiles(batch * pixels, channels, 9 * channels // 64) == expected


def test_small_tiles_while_large_ones_leave_multiprocessors_idle(tiles):
    """36 steps of 256 columns: below, at and above one and two blocks per multiprocessor."""
    assert tiles(64 * 66, 256, 36) == (64, 128, 1)  # 132 blocks of 64 x 128, 66 of 128 x 128
    assert tiles(64 * 66 + 1, 256, 36) == (128, 128, 1)  # 134, two on some; 68
    assert tiles(128 * 66, 256, 36) == (128, 128, 1)  # 132 blocks of 128 x 128, 66 of 128 x 256
    assert tiles(128 * 66 + 1, 256, 36) == (128, 256, 1)  # 134, two on some; 67
    assert tiles(128 * 132, 256, 36) == (128, 256, 1)


def test_128_columns_are_not_multiplied_as_256(tiles):
    for pixels in (1, 128, 128 * 132, 10**6):
        assert tiles(pixels, 128, 18)[1] == 128
    assert tiles(10**6, 129, 18)[1] == 256


def test_parts_of_k_run_at_once(tiles):
    """No more blocks than two per multiprocessor, and not above eight parts or as many as there are steps."""
    for blocks in range(1, 140):
        splits = tiles(64 * blocks, 128, 72)[2]
        assert splits == 1 or blocks * splits <= 2 * MULTIPROCESSORS
    assert tiles(64, 128, 10_000)[2] in (7, 8)
    assert tiles(64, 128, 7, multiprocessors=10**6)[2] <= 7
    assert tiles(64, 128, 1) == (64, 128, 1)


def test_few_steps_are_not_divided(tiles):
    """A second launch would take longer than it saves."""
    assert tiles(64, 128, 18)[2] == 1
    assert tiles(64, 128, 36)[2] > 1


def test_groups_count_as_column_tiles(tiles):
    assert tiles(64 * 33, 128, 36, groups=4) == tiles(64 * 33, 512, 36)
    assert tiles(64 * 33, 8, 36, groups=4) == tiles(64 * 33, 128, 36, groups=4)


def test_sizes_beyond_32_bits(tiles):
    assert tiles(2**40, 4096, 2**20) == (128, 256, 1)
