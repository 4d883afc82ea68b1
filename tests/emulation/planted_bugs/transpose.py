"""Bugs of the transpose between layouts."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug

_transpose = partial(PlantedBug, library="transpose", tests=("test_transpose.py",))

BUGS = (
    _transpose(
        "transpose_missing_barrier",
        "common/transpose.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();

#pragma unroll""",
        new="""
#pragma unroll""",
        report=r"kernel Transpose<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _transpose(
        "transpose_missing_barrier_between_tiles",
        "common/transpose.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }""",
        new="""    }""",
        report=r"kernel Transpose<.*race on word \d+ of shared memory: .* writes it in .* read it in ",
    ),
    _transpose(
        "transpose_index_off_by_one",
        "common/transpose.cuh",
        old="rows, tile.get(place * kPitch + lane)",
        new="rows, tile.get(place * kPitch + lane + 1)",
        report=r"kernel Transpose<.*reads word \d+ of shared memory .*, which no thread has set",
    ),
    _transpose(
        "transpose_row_past_the_end",
        "common/transpose.cuh",
        old="row < rows ? load(",
        new="row <= rows ? load(",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _transpose(
        "transpose_unwritten_tail",
        "common/transpose.cuh",
        old="const int64_t tiles_down = ceil_div(rows, Kernel::kTile);",
        new="const int64_t tiles_down = rows < Kernel::kTile ? 1 : rows / Kernel::kTile;",
        report=r"\bnan\b",
    ),
    _transpose(
        "transpose_unaligned_pairs",
        "common/transpose.cuh",
        old="line % Kernel::kPack == 0 && is_aligned",
        new="line % Kernel::kPack == 0 || is_aligned",
        report=r"kernel Transpose<.*accesses 4 bytes at .*, which is not aligned",
    ),
)
