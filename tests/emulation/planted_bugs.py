"""Bugs to plant in the CUDA sources, one at a time, and what must then be reported.

``old`` must occur exactly once in ``file``. When a kernel is rewritten its bugs move along: test_planted_bugs.py says which
no longer apply.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlantedBug:
    name: str
    file: str  # under csrc
    old: str
    new: str
    library: str  # of libraries.py; "operators/deform_conv" is built of that operator's sources only
    tests: tuple[str, ...]  # of this folder, with pytest's -k behind the file where there is one
    report: str  # a regular expression that the failing tests' output must match
    sanitize: bool = False


TRANSPOSE_TESTS = ("test_transpose.py",)
DEFORM_TESTS = ("test_cuda_sources.py", "-k", "test_deform_conv2d and float32 and (plain or groups)")
FROZEN_BN_TESTS = ("test_frozen_bn.py", "-k", "float32 and (values or many_packs or begin_anywhere)")
WRONG_RESULT = r"AssertionError: relative error (nan|\d\.\d+e[-+]\d+)"

BUGS = (
    PlantedBug(
        name="transpose_missing_barrier",
        file="common/transpose.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();

#pragma unroll""",
        new="""
#pragma unroll""",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"kernel Transpose<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    PlantedBug(
        name="transpose_missing_barrier_between_tiles",
        file="common/transpose.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }""",
        new="""    }""",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"kernel Transpose<.*race on word \d+ of shared memory: .* writes it in .* read it in ",
    ),
    PlantedBug(
        name="transpose_index_off_by_one",
        file="common/transpose.cuh",
        old="rows, tile.get(place * kPitch + lane)",
        new="rows, tile.get(place * kPitch + lane + 1)",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"kernel Transpose<.*reads word \d+ of shared memory .*, which no thread has set",
    ),
    PlantedBug(
        name="transpose_row_past_the_end",
        file="common/transpose.cuh",
        old="row < rows ? load(",
        new="row <= rows ? load(",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    PlantedBug(
        name="transpose_unwritten_tail",
        file="common/transpose.cuh",
        old="const int64_t tiles_down = ceil_div(rows, Kernel::kTile);",
        new="const int64_t tiles_down = rows < Kernel::kTile ? 1 : rows / Kernel::kTile;",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"\bnan\b",
    ),
    PlantedBug(
        name="transpose_unaligned_pairs",
        file="common/transpose.cuh",
        old="line % Kernel::kPack == 0 && reinterpret",
        new="line % Kernel::kPack == 0 || reinterpret",
        library="transpose",
        tests=TRANSPOSE_TESTS,
        report=r"kernel Transpose<.*accesses 4 bytes at .*, which is not aligned",
    ),
    PlantedBug(
        name="deform_conv_border_predicate",
        file="deform_conv/deform_conv_math.h",
        old="y >= Real(-1) && y < static_cast<Real>(shape.height)",
        new="y >= Real(0) && y < static_cast<Real>(shape.height)",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=WRONG_RESULT,
    ),
    PlantedBug(
        name="deform_conv_border_reads_outside",
        file="deform_conv/deform_conv_math.h",
        old="const bool has_bottom = top + 1 < shape.height;",
        new="const bool has_bottom = top + 1 <= shape.height;",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    PlantedBug(
        name="deform_conv_swapped_corner_weight",
        file="deform_conv/deform_conv_math.h",
        old="(index & 1) == 0 ? Real(1) - fraction_x : fraction_x",
        new="(index & 1) != 0 ? Real(1) - fraction_x : fraction_x",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=WRONG_RESULT,
    ),
    PlantedBug(
        name="frozen_bn_border_between_planes",
        file="frozen_bn/cuda_contiguous.cuh",
        old="element < left ?",
        new="element <= left ?",
        library="operators/frozen_bn",
        tests=FROZEN_BN_TESTS,
        report=r"AssertionError: (output|gradient for \w+) is off by",
    ),
    PlantedBug(
        name="frozen_bn_stride_not_whole_pixels",
        file="frozen_bn/cuda_channels_last.cuh",
        old="stride = stride < period ? period : stride / period * period;",
        new="stride = stride < period ? period : stride;",
        library="operators/frozen_bn",
        tests=FROZEN_BN_TESTS,
        report=r"AssertionError: output is off by",
    ),
    PlantedBug(
        name="frozen_bn_unwritten_tail",
        file="frozen_bn/cuda_channels_last.cuh",
        old="if (first < tail) {",
        new="if (first + 1 < tail) {",
        library="operators/frozen_bn",
        tests=FROZEN_BN_TESTS,
        report=r"AssertionError: output has NaN at",
    ),
    PlantedBug(
        name="frozen_bn_unaligned_view",
        file="frozen_bn/frozen_bn_cuda.cu",
        old="% kPackBytes == 0",
        new="% 4 == 0",
        library="operators/frozen_bn",
        tests=FROZEN_BN_TESTS,
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
    ),
    PlantedBug(
        name="frozen_bn_pack_past_the_end",
        file="frozen_bn/cuda_channels_last.cuh",
        old="""if (first + i * stride < packs) {
        pass.read(""",
        new="""if (first + i * stride <= packs) {
        pass.read(""",
        library="operators/frozen_bn",
        tests=FROZEN_BN_TESTS,
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
)
