"""How the steps of all tiles are divided among blocks: csrc/deform_conv_fused/cuda_stream_k.cuh."""

from __future__ import annotations

import pytest
import torch

# The weight's gradient of C4 and of C3 at batch 8 on an H200 among them: 18 tiles of 525 steps, 9 of 2100.
SIZES = [(18, 525), (9, 2100), (1, 1), (1, 5), (5, 1), (7, 3), (72, 17), (3, 132)]


@pytest.mark.parametrize("most_blocks", [1, 2, 7, 131, 132, 133, 5000])
@pytest.mark.parametrize(("tiles", "steps"), SIZES)
def test_every_step_once(index_operators, tiles, steps, most_blocks):
    beside = torch.empty(0)
    parts = index_operators.stream_parts(beside, tiles, steps, most_blocks).tolist()
    listed = [(tile, step) for _, tile, first, end, _ in parts for step in range(first, end)]
    assert listed == [(tile, step) for tile in range(tiles) for step in range(steps)]
    blocks = [block for block, *_ in parts]
    work = [sum(end - first for at, _, first, end, _ in parts if at == block) for block in sorted(set(blocks))]
    assert blocks == sorted(blocks) and len(work) == min(most_blocks, tiles * steps)
    assert max(work) - min(work) <= 1 <= min(work)


@pytest.mark.parametrize("most_blocks", [1, 2, 7, 131, 132, 133, 5000])
@pytest.mark.parametrize(("tiles", "steps"), SIZES)
def test_sums_and_who_adds_them(index_operators, tiles, steps, most_blocks):
    beside = torch.empty(0)
    parts = index_operators.stream_parts(beside, tiles, steps, most_blocks).tolist()
    places = [place for *_, place in parts]
    assert len(set(places)) == len(places)
    for tile, (first, last, count) in enumerate(
        index_operators.stream_blocks(beside, tiles, steps, most_blocks).tolist()
    ):
        assert [block for block, of, *_ in parts if of == tile] == list(range(first, last + 1))
        assert min(places) >= 0 and max(places) < count
