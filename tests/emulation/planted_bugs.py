"""Bugs to plant in the CUDA sources, one at a time, and what must then be reported.

``old`` must occur exactly once in ``file``. Whoever rewrites a kernel adapts its bugs: test_planted_bugs.py says which
no longer apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class PlantedBug:
    name: str
    file: str  # under csrc
    old: str
    new: str
    report: str  # a regular expression that the failing tests' output must match
    library: str  # of libraries.py; "operators/deform_conv" is built of that operator's sources only
    tests: tuple[str, ...]  # of this folder, with pytest's -k behind the file where there is one
    sanitize: bool = False


_transpose = partial(PlantedBug, library="transpose", tests=("test_transpose.py",))
_deform_conv = partial(
    PlantedBug,
    library="operators/deform_conv",
    tests=("test_deform_conv.py", "-k", "test_values_and_gradients and (plain or offset_groups_3 or kernel_2x4)"),
)
_frozen_bn = partial(
    PlantedBug,
    library="operators/frozen_bn",
    tests=("test_frozen_bn.py", "-k", "float32 and (values or many_packs or begin_anywhere)"),
)
LONG_LIST_TESTS = ("test_deform_conv.py", "-k", "test_offsets_onto_one_pixel and float32")
ORDER_TESTS = ("test_deform_conv.py", "-k", "test_bitwise_equal and deform_arguments")
WRONG_RESULT = r"AssertionError: (output|gradient for \w+) is off by "

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
        old="line % Kernel::kPack == 0 && reinterpret",
        new="line % Kernel::kPack == 0 || reinterpret",
        report=r"kernel Transpose<.*accesses 4 bytes at .*, which is not aligned",
    ),
    _deform_conv(
        "deform_conv_border_predicate",
        "deform_conv/deform_conv_math.h",
        old="(position >= Real(-1)) & (position < size)",
        new="(position >= Real(0)) & (position < size)",
        report=WRONG_RESULT,
    ),
    _deform_conv(
        "deform_conv_border_reads_outside",
        "deform_conv/deform_conv_math.h",
        old="return first < size - 1;",
        new="return first <= size - 1;",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _deform_conv(
        "deform_conv_swapped_corner_weight",
        "deform_conv/deform_conv_math.h",
        old="(index & 1) == 0 ? 1 - fraction_x : fraction_x",
        new="(index & 1) != 0 ? 1 - fraction_x : fraction_x",
        report=WRONG_RESULT,
    ),
    _deform_conv(
        "sampling_missing_barrier",
        "deform_conv/cuda_tap_block.cuh",
        old="    RESNET_CUDA_SYNC_BLOCK();\n",
        new="",
        report=r"kernel SampleColumns<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _deform_conv(
        "sampling_index_off_by_one",
        "deform_conv/cuda_sample_columns.cuh",
        old="blend(plan.get(tap * kTilePixels + mine.pixel)",
        new="blend(plan.get(tap * kTilePixels + mine.pixel + 1)",
        report=rf"{WRONG_RESULT}|kernel SampleColumns<.*which no thread has set",
    ),
    _deform_conv(
        "sampling_unwritten_tail",
        "deform_conv/cuda_chunk.cuh",
        old="return (height + kTileRows - 1) / kTileRows;",
        new="return height < kTileRows ? 1 : height / kTileRows;",
        report=r"AssertionError: output has NaN",
    ),
    _deform_conv(
        "position_gradients_wrong_row_sum",
        "deform_conv/cuda_position_gradients.cuh",
        old="for (int distance = division.row_threads / 2; distance > 0; distance /= 2)",
        new="for (int distance = division.row_threads / 2; distance > 1; distance /= 2)",
        report=r"AssertionError: gradient for (offset|mask) is off by ",
    ),
    _deform_conv(
        "lists_missing_barrier",
        "deform_conv/cuda_input_lists.cuh",
        old="""    RESNET_CUDA_SYNC_BLOCK();
    if (thread == 0) {""",
        new="""    if (thread == 0) {""",
        report=r"kernel PlaceLists<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _deform_conv(
        "lists_in_order_of_arrival",
        "deform_conv/cuda_input_lists.cuh",
        old="lists.sorted[place] = mine;",
        new="lists.sorted[entry] = mine;",
        report=r"AssertionError: input differs ",
        tests=ORDER_TESTS,
    ),
    _deform_conv(
        "long_lists_missing_barrier_between_lists",
        "deform_conv/cuda_gather_input.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }
  }""",
        new="""    }
  }""",
        report=r"kernel GatherLongLists<.*race on word \d+ of shared memory",
        tests=LONG_LIST_TESTS,
    ),
    _deform_conv(
        "long_lists_missing_barrier_between_rows",
        "deform_conv/cuda_input_lists.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
    }
  }""",
        new="""    }
  }""",
        report=r"kernel OrderLists<.*race on word \d+ of shared memory",
        tests=("test_deform_conv.py", "-k", "test_long_lists_of_many_rows"),
    ),
    _deform_conv(
        "long_lists_rows_of_the_first_image",
        "deform_conv/cuda_input_lists.cuh",
        old="const int first_row = list_image % chunk.images * image_rows;",
        new="const int first_row = 0;",
        report=r"AssertionError: gradient for input",
        tests=("test_deform_conv.py", "-k", "test_long_lists_of_several_images"),
    ),
    _deform_conv(
        "long_lists_forgotten",
        "deform_conv/cuda_input_lists.cuh",
        old="if (length > kLongList) {",
        new="if (length > 4 * kLongList) {",
        report=r"AssertionError: gradient for input (is off by|is all zeros)",
        tests=LONG_LIST_TESTS,
    ),
    _frozen_bn(
        "frozen_bn_border_between_planes",
        "frozen_bn/cuda_contiguous.cuh",
        old="element < remaining[i] ?",
        new="element <= remaining[i] ?",
        report=r"AssertionError: (output|gradient for \w+) is off by",
    ),
    _frozen_bn(
        "frozen_bn_stride_not_whole_pixels",
        "frozen_bn/cuda_channels_last.cuh",
        old="stride = stride < period ? period : stride / period * period;",
        new="stride = stride < period ? period : stride;",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_unwritten_tail",
        "frozen_bn/cuda_channels_last.cuh",
        old="if (N > 1 && first < tail) {",
        new="if (N > 1 && first + 1 < tail) {",
        report=r"AssertionError: output has NaN at",
    ),
    _frozen_bn(
        "frozen_bn_unaligned_view",
        "frozen_bn/frozen_bn_cuda.cu",
        old="% kPackBytes != 0",
        new="% 4 != 0",
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
    ),
    _frozen_bn(
        "frozen_bn_reads_a_pack_past_the_end",
        "frozen_bn/cuda_passes.cuh",
        old="if (first + i * stride < packs) {",
        new="if (first + i * stride <= packs) {",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _frozen_bn(
        "frozen_bn_writes_a_pack_past_the_end",
        "frozen_bn/cuda_contiguous.cuh",
        old="if (first + i * stride < packs) {",
        new="if (first + i * stride <= packs) {",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _frozen_bn(
        "frozen_bn_constants_of_the_first_pack",
        "frozen_bn/cuda_contiguous.cuh",
        old="round.pack[i], [&](int) { return constant[i]; }",
        new="round.pack[i], [&](int) { return constant[0]; }",
        report=r"AssertionError: (output|gradient for \w+) is off by",
    ),
    _frozen_bn(
        "frozen_bn_constants_of_the_next_pack",
        "frozen_bn/cuda_channels_last.cuh",
        old="channels.remainder(pack * N);",
        new="channels.remainder(pack * N + N);",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_last_round_missed",
        "frozen_bn/cuda_channels_last.cuh",
        old="if (pack >= packs) {",
        new="if (pack + 1 >= packs) {",
        report=r"AssertionError: output has NaN at",
        tests=("test_frozen_bn.py", "-k", "float32 and each_border"),
    ),
    _frozen_bn(
        "frozen_bn_one_block_too_few",
        "frozen_bn/frozen_bn_cuda.cu",
        old="launcher.launch(body.blocks, body);\n  } else {",
        new="launcher.launch(body.blocks - 1, body);\n  } else {",
        report=r"AssertionError: output has NaN at",
    ),
    PlantedBug(
        "frozen_bn_second_wave_too_early",
        "frozen_bn/cuda_grid.h",
        old="packs <= wave *",
        new="packs < wave *",
        report=r"assert 1056 == 528",
        library="index",
        tests=("test_index.py", "-k", "blocks_of_frozen_bn"),
    ),
    _frozen_bn(
        "frozen_bn_tail_of_one_channel",
        "frozen_bn/cuda_channels_last.cuh",
        old="channels.remainder(tail_channel + first)",
        new="channels.remainder(tail_channel)",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_scale_of_the_first_channels_only",
        "frozen_bn/cuda_passes.cuh",
        old="for (int64_t channel = thread; channel < channels; channel += threads) {",
        new="if (const int64_t channel = thread; channel < channels && channel < threads) {",
        report=r"AssertionError: the scale is off",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_values"),
    ),
    _frozen_bn(
        "frozen_bn_statistics_taken_as_aligned",
        "frozen_bn/frozen_bn_cuda.cu",
        old="all_aligned({pass.weight, pass.bias, pass.mean, pass.variance})",
        new="all_aligned({pass.weight, pass.bias})",
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_buffers_may_begin_anywhere"),
    ),
    _frozen_bn(
        "frozen_bn_dead_channel_divided_by_zero",
        "frozen_bn/frozen_bn_math.h",
        old="denominator == Real(0) ? Real(0) : usual",
        new="usual",
        report=r"AssertionError|assert ",
        tests=("test_frozen_bn.py", "-k", "float32 and variance_0_at_eps_0"),
    ),
    _deform_conv(
        "gather_skips_the_last_entry",
        "deform_conv/cuda_gather_input.cuh",
        old="list_sum.add(begin, begin + length,",
        new="list_sum.add(begin, begin + length - 1,",
        report=r"AssertionError: gradient for input is off by ",
    ),
    _deform_conv(
        "lists_count_corners_outside",
        "deform_conv/cuda_input_lists.cuh",
        old="if (sample.corner[i] >= 0 && weight != Real(0)) {",
        new="if (weight != Real(0)) {",
        report=r"AddressSanitizer: |AssertionError: gradient for input is off by ",
        sanitize=True,
    ),
    _deform_conv(
        "bias_of_the_next_output",
        "deform_conv/deform_conv_cuda.cu",
        old="bias + row_packs.remainder(index) * N",
        new="bias + row_packs.remainder(index + 1) * N",
        report=r"AssertionError: output is off by ",
    ),
    _deform_conv(
        "weight_gradient_of_the_last_chunk_only",
        "deform_conv/deform_conv_backward_cuda.cu",
        old="(first ? Real(0) : total[index])",
        new="(first || last ? Real(0) : total[index])",
        report=r"AssertionError: gradient for weight is off by ",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
    ),
    _deform_conv(
        "input_gradient_of_the_image_before",
        "deform_conv/deform_conv_backward_cuda.cu",
        old="    total[index] = Real(0);\n",
        new="",
        report=r"AssertionError: gradient for input is off by ",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
    ),
)
