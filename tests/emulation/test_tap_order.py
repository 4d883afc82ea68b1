"""The reordering of weights between their own order and that of the columns, emulated, and its sums."""

from __future__ import annotations

import pytest
import torch

DTYPES = {
    "float32": (torch.float32, torch.float32),
    "float64": (torch.float64, torch.float64),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float32 to bfloat16": (torch.float32, torch.bfloat16),
}


def in_room(values: torch.Tensor, shift: int) -> torch.Tensor:
    """The same values, `shift` elements behind an aligned address."""
    room = torch.empty(values.numel() + shift, dtype=values.dtype)
    assert room.data_ptr() % 64 == 0
    room[shift:] = values.flatten()
    return room[shift:]


# Below, at and above the nine taps that a thread transposes, and the channels that it takes: 4, of float64 2.
@pytest.mark.parametrize("taps", [1, 4, 8, 9, 10, 18])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 12])
@pytest.mark.parametrize("taps_last", [False, True], ids=["to the columns' order", "to the weight's order"])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_order(tap_order, dtypes, taps_last, channels, taps):
    check(tap_order, dtypes, taps_last, channels, taps)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (0, 2), (2, 0), (3, 3), (4, 4)], ids=str)
@pytest.mark.parametrize("taps_last", [False, True], ids=["to the columns' order", "to the weight's order"])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_weights_that_begin_anywhere(tap_order, dtypes, taps_last, shift):
    check(tap_order, dtypes, taps_last, 8, 9, shift=shift)


@pytest.mark.parametrize("taps_last", [False, True], ids=["to the columns' order", "to the weight's order"])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("channels", "taps"), [(8, 9), (5, 9), (8, 4)])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_sums(tap_order, dtypes, channels, taps, count, taps_last):
    check(tap_order, dtypes, taps_last, channels, taps, count=count)


# A thread each: one, below, at and above a block of 256.
@pytest.mark.parametrize("outputs", [1, 63, 64, 65])
def test_blocks_of_threads(tap_order, outputs):
    check(tap_order, DTYPES["float32"], True, 16, 9, outputs=outputs)


def check(reorder, dtypes, taps_last, channels, taps, *, outputs=3, count=1, shift=(0, 0)):
    # Whole numbers whose sums bfloat16 holds, and all different where there are few.
    generator = torch.Generator().manual_seed(taps)
    order = (outputs, taps, channels) if taps_last else (outputs, channels, taps)
    values = torch.randint(-256 // count, 256 // count + 1, (count, *order), generator=generator)
    source = in_room(values.to(dtypes[0]), shift[0])
    target = in_room(torch.full((outputs * taps * channels,), torch.nan, dtype=dtypes[1]), shift[1])
    reorder(source, target, outputs, channels, taps, count, taps_last)
    expected = values.sum(0).mT.flatten()
    assert torch.equal(target, expected.to(dtypes[1])), f"{(target != expected).sum()} of {target.numel()} differ"
