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
DEFORM_TESTS = ("test_deform_conv.py", "-k", "test_values_and_gradients and (plain or offset_groups_3 or kernel_2x4)")
LONG_LIST_TESTS = ("test_deform_conv.py", "-k", "test_offsets_onto_one_pixel and float32")
ORDER_TESTS = ("test_deform_conv.py", "-k", "test_bitwise_equal and deform_arguments")
WRONG_RESULT = r"AssertionError: (output|gradient for \w+) is off by "
FROZEN_BN_TESTS = ("test_frozen_bn.py", "-k", "float32 and (values or many_packs or begin_anywhere)")

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
        old="(position >= Real(-1)) & (position < size)",
        new="(position >= Real(0)) & (position < size)",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=WRONG_RESULT,
    ),
    PlantedBug(
        name="deform_conv_border_reads_outside",
        file="deform_conv/deform_conv_math.h",
        old="return first < size - 1;",
        new="return first <= size - 1;",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    PlantedBug(
        name="deform_conv_swapped_corner_weight",
        file="deform_conv/deform_conv_math.h",
        old="(index & 1) == 0 ? 1 - fraction_x : fraction_x",
        new="(index & 1) != 0 ? 1 - fraction_x : fraction_x",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=WRONG_RESULT,
    ),
    PlantedBug(
        name="sampling_missing_barrier",
        file="deform_conv/cuda_sample_columns.cuh",
        old="    RESNET_CUDA_SYNC_BLOCK();\n",
        new="",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"kernel SampleColumns<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    PlantedBug(
        name="sampling_index_off_by_one",
        file="deform_conv/cuda_sample_columns.cuh",
        old="blend(plan.get(tap * kTilePixels + mine.pixel)",
        new="blend(plan.get(tap * kTilePixels + mine.pixel + 1)",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=rf"{WRONG_RESULT}|kernel SampleColumns<.*which no thread has set",
    ),
    PlantedBug(
        name="sampling_unwritten_tail",
        file="deform_conv/cuda_chunk.cuh",
        old="return (height + kTileRows - 1) / kTileRows;",
        new="return height < kTileRows ? 1 : height / kTileRows;",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AssertionError: output has NaN",
    ),
    PlantedBug(
        name="position_gradients_wrong_lane_sum",
        file="deform_conv/cuda_position_gradients.cuh",
        old="for (int distance = lanes / 2; distance > 0; distance /= 2)",
        new="for (int distance = lanes / 2; distance > 1; distance /= 2)",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AssertionError: gradient for (offset|mask) is off by ",
    ),
    PlantedBug(
        name="lists_missing_barrier",
        file="deform_conv/cuda_input_lists.cuh",
        old="""    RESNET_CUDA_SYNC_BLOCK();
    if (thread == 0) {""",
        new="""    if (thread == 0) {""",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"kernel PlaceLists<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    PlantedBug(
        name="lists_in_order_of_arrival",
        file="deform_conv/cuda_input_lists.cuh",
        old="lists.ordered[place] = mine;",
        new="lists.ordered[entry] = mine;",
        library="operators/deform_conv",
        tests=ORDER_TESTS,
        report=r"AssertionError: input differs ",
    ),
    PlantedBug(
        name="long_lists_missing_barrier_between_lists",
        file="deform_conv/cuda_gather_input.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }
  }""",
        new="""    }
  }""",
        library="operators/deform_conv",
        tests=LONG_LIST_TESTS,
        report=r"kernel GatherLongLists<.*race on word \d+ of shared memory",
    ),
    PlantedBug(
        name="long_lists_missing_barrier_between_rows",
        file="deform_conv/cuda_input_lists.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }
  }""",
        new="""    }
  }""",
        library="operators/deform_conv",
        tests=("test_deform_conv.py", "-k", "test_long_lists_of_many_rows"),
        report=r"kernel OrderLists<.*race on word \d+ of shared memory",
    ),
    PlantedBug(
        name="long_lists_rows_of_the_first_image",
        file="deform_conv/cuda_input_lists.cuh",
        old="const int first_row = list_image % chunk.images * image_rows;",
        new="const int first_row = 0;",
        library="operators/deform_conv",
        tests=("test_deform_conv.py", "-k", "test_long_lists_of_several_images"),
        report=r"AssertionError: gradient for input",
    ),
    PlantedBug(
        name="long_lists_forgotten",
        file="deform_conv/cuda_input_lists.cuh",
        old="if (length > kLongList) {",
        new="if (length > 4 * kLongList) {",
        library="operators/deform_conv",
        tests=LONG_LIST_TESTS,
        report=r"AssertionError: gradient for input (is off by|is all zeros)",
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
    PlantedBug(
        name="frozen_bn_scale_of_the_first_channels_only",
        file="frozen_bn/cuda_passes.cuh",
        old="for (int64_t channel = thread; channel < channels; channel += threads) {",
        new="if (const int64_t channel = thread; channel < channels && channel < threads) {",
        library="operators/frozen_bn",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_values"),
        report=r"AssertionError: the scale is off",
    ),
    PlantedBug(
        name="frozen_bn_statistics_taken_as_aligned",
        file="frozen_bn/frozen_bn_cuda.cu",
        old="all_aligned({pass.weight, pass.bias, pass.mean, pass.variance})",
        new="all_aligned({pass.weight, pass.bias})",
        library="operators/frozen_bn",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_buffers_may_begin_anywhere"),
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
    ),
    PlantedBug(
        name="frozen_bn_dead_channel_divided_by_zero",
        file="frozen_bn/frozen_bn_math.h",
        old="denominator == Real(0) ? Real(0) : usual",
        new="usual",
        library="operators/frozen_bn",
        tests=("test_frozen_bn.py", "-k", "float32 and variance_0_at_eps_0"),
        report=r"AssertionError|assert ",
    ),
    PlantedBug(
        name="gather_skips_the_last_entry",
        file="deform_conv/cuda_gather_input.cuh",
        old="list_sum.add(begin, begin + length,",
        new="list_sum.add(begin, begin + length - 1,",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AssertionError: gradient for input is off by ",
    ),
    PlantedBug(
        name="lists_count_corners_outside",
        file="deform_conv/cuda_input_lists.cuh",
        old="if (sample.corner[i] >= 0 && weight != Real(0)) {",
        new="if (weight != Real(0)) {",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AddressSanitizer: |AssertionError: gradient for input is off by ",
        sanitize=True,
    ),
    PlantedBug(
        name="bias_of_the_next_output",
        file="deform_conv/deform_conv_cuda.cu",
        old="bias + row_packs.remainder(index) * N",
        new="bias + row_packs.remainder(index + 1) * N",
        library="operators/deform_conv",
        tests=DEFORM_TESTS,
        report=r"AssertionError: output is off by ",
    ),
    PlantedBug(
        name="weight_gradient_of_the_last_chunk_only",
        file="deform_conv/deform_conv_backward_cuda.cu",
        old="(first ? Real(0) : total[index])",
        new="(first || last ? Real(0) : total[index])",
        library="operators/deform_conv",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
        report=r"AssertionError: gradient for weight is off by ",
    ),
    PlantedBug(
        name="input_gradient_of_the_image_before",
        file="deform_conv/deform_conv_backward_cuda.cu",
        old="    total[index] = Real(0);\n",
        new="",
        library="operators/deform_conv",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
        report=r"AssertionError: gradient for input is off by ",
    ),
)
