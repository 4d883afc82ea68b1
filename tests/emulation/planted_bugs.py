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
_lists = partial(
    PlantedBug, library="lists", tests=("test_input_lists.py", "-k", "inverse_of_the_taps and float32 or around")
)
_sizes = partial(
    PlantedBug,
    file="deform_conv/cuda_workspace.h",
    report=r"AssertionError|assert ",
    library="index",
    tests=("test_index.py", "-k", "chunks_at_their_budgets"),
)
BLOCK_TESTS = ("test_deform_conv_blocks.py", "-k")
_blocks = partial(
    PlantedBug, library="operators/deform_conv", tests=(*BLOCK_TESTS, "test_taps_and_packs or changes_no_bit")
)
_parts = partial(
    PlantedBug,
    file="deform_conv/cuda_tap_block.cuh",
    report=r"AssertionError|assert ",
    library="index",
    tests=("test_tap_blocks.py",),
)
_tap_order = partial(
    PlantedBug,
    file="deform_conv/cuda_tap_order.cuh",
    report=r"AssertionError: \d+ of \d+ differ",
    library="tap_order",
    tests=("test_tap_order.py",),
)
BIAS_TESTS = ("test_bias_sums.py", "-k", "whole_numbers")
LONG_LIST_TESTS = ("test_deform_conv.py", "-k", "test_offsets_onto_one_pixel and float32")
LIST_TESTS = ("test_input_lists.py", "-k")
LISTS_DIFFER = r"AssertionError: the lists differ"
WRONG_RESULT = r"AssertionError: (output|gradient for \w+) is off by "
WRONG_RESULT_OR_NAN = r"AssertionError: (output|gradient for \w+) (is off by|has NaN) "
WRONG_POSITION_GRADIENT = r"AssertionError: gradient for (offset|mask) is off by "

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
        "taps_outside_the_image_have_corners",
        "deform_conv/deform_conv_math.h",
        old="const bool has_bottom = readable && second_exists",
        new="const bool has_bottom = second_exists",
        report=WRONG_RESULT,
    ),
    _blocks(
        "plan_beyond_nine_taps",
        "deform_conv/cuda_tap_block.cuh",
        old="TapParts parts{std::min(taps, kMostTapsPerBlock),",
        new="TapParts parts{taps,",
        report=r"kernel SampleColumns<.*index \d+ of 288 elements of shared memory",
    ),
    _blocks(
        "second_block_of_the_first_taps",
        "deform_conv/cuda_tap_block.cuh",
        old="first_tap = tap_part * division.part.taps;",
        new="first_tap = tap_part;",
        report=WRONG_RESULT_OR_NAN,
    ),
    _blocks(
        "plan_of_the_first_taps",
        "deform_conv/cuda_tap_block.cuh",
        old="offset_group, first_tap + tap}));",
        new="offset_group, tap}));",
        report=WRONG_RESULT,
    ),
    _blocks(
        "tap_of_the_last_part_missed",
        "deform_conv/cuda_tap_block.cuh",
        old="taps - first_tap < division.part.taps ? taps - first_tap :",
        new="taps - first_tap < division.part.taps ? taps - first_tap - 1 :",
        report=WRONG_RESULT_OR_NAN,
    ),
    _blocks(
        "slice_missed",
        "deform_conv/cuda_call.cuh",
        old="static_cast<int>(ceil_div(packs, part.slice_packs));",
        new="std::max(1, packs / part.slice_packs);",
        report=WRONG_RESULT_OR_NAN,
    ),
    _blocks(
        "last_block_of_pixels_missed",
        "deform_conv/cuda_call.cuh",
        old="ceil_div(chunk.pixels(), kBlockPixels) * parts};",
        new="int64_t{std::max(1, chunk.pixels() / kBlockPixels)} * parts};",
        report=r"AssertionError: output has NaN",
        tests=(*BLOCK_TESTS, "last_block"),
    ),
    _blocks(
        "pixels_of_an_image_too_many",
        "deform_conv/cuda_tap_block.cuh",
        old="image < chunk.images};",
        new="image <= chunk.images};",
        report=r"AddressSanitizer: heap-buffer-overflow",
        tests=(*BLOCK_TESTS, "last_block"),
        sanitize=True,
    ),
    PlantedBug(
        "strip_of_the_last_rows",
        "deform_conv/cuda_strips.cuh",
        old="first_row < full_rows_",
        new="first_row <= full_rows_",
        report=r"AssertionError|assert ",
        library="index",
        tests=("test_index.py", "-k", "test_strips"),
    ),
    PlantedBug(
        "strip_of_eight_rows_at_the_end",
        "deform_conv/cuda_strips.cuh",
        old="last_rows_(height % kStripRows == 0 ? kStripRows : height % kStripRows)",
        new="last_rows_(kStripRows)",
        report=r"AssertionError|assert ",
        library="index",
        tests=("test_index.py", "-k", "test_strips"),
    ),
    _blocks(
        "sampling_missing_barrier",
        "deform_conv/cuda_sample_columns.cuh",
        old="    RESNET_CUDA_SYNC_BLOCK();\n",
        new="",
        report=r"kernel SampleColumns<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _blocks(
        "sampling_index_off_by_one",
        "deform_conv/cuda_sample_columns.cuh",
        old="plan.get(tap * kBlockPixels + mine.pixel)",
        new="plan.get(tap * kBlockPixels + mine.pixel + 1)",
        report=rf"{WRONG_RESULT}|kernel SampleColumns<.*which no thread has set",
    ),
    _blocks(
        "sampling_second_pack_of_the_first",
        "deform_conv/cuda_sample_columns.cuh",
        old="load_corners(source + i * kApart,",
        new="load_corners(source,",
        report=WRONG_RESULT,
    ),
    _blocks(
        "sampling_second_pack_too_near",
        "deform_conv/cuda_sample_columns.cuh",
        old="constexpr int kApart = kMostRowThreads * N;",
        new="constexpr int kApart = kMostRowThreads / 2 * N;",
        report=r"AssertionError: output has NaN",
    ),
    _blocks(
        "pairs_of_packs_across_weight_groups",
        "deform_conv/cuda_call.cuh",
        old="chunk.shape.groups == 1},",
        new="true},",
        report=WRONG_RESULT_OR_NAN,
        tests=(*BLOCK_TESTS, "weight_groups"),
    ),
    _blocks(
        "position_gradients_missing_barrier_after_the_plan",
        "deform_conv/cuda_position_gradients.cuh",
        old="    RESNET_CUDA_SYNC_BLOCK();\n\n    // Pairs",
        new="\n    // Pairs",
        report=r"kernel PositionGradients<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _blocks(
        "position_gradients_missing_barrier_before_writing",
        "deform_conv/cuda_position_gradients.cuh",
        old="    RESNET_CUDA_SYNC_BLOCK();\n    write(block, slopes);",
        new="    write(block, slopes);",
        report=r"kernel PositionGradients<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _blocks(
        "position_gradients_wrong_row_sum",
        "deform_conv/cuda_position_gradients.cuh",
        old="for (int distance = division.row_threads / 2; distance > 0; distance /= 2)",
        new="for (int distance = division.row_threads / 2; distance > 1; distance /= 2)",
        report=WRONG_POSITION_GRADIENT,
    ),
    _blocks(
        "position_gradients_wrong_corner_kept",
        "deform_conv/cuda_position_gradients.cuh",
        old="const bool lower = (in_row & 4) != 0;",
        new="const bool lower = (in_row & 4) == 0;",
        report=WRONG_POSITION_GRADIENT,
    ),
    _blocks(
        "position_gradients_wrong_lane_added",
        "deform_conv/cuda_position_gradients.cuh",
        old="RESNET_CUDA_SHUFFLE_XOR(right ? kept[0] : kept[1], 2)",
        new="RESNET_CUDA_SHUFFLE_XOR(right ? kept[0] : kept[1], 1)",
        report=WRONG_POSITION_GRADIENT,
    ),
    _blocks(
        "position_gradients_second_pack_too_near",
        "deform_conv/cuda_position_gradients.cuh",
        old="constexpr int kApart = kMostRowThreads * N;",
        new="constexpr int kApart = kMostRowThreads / 2 * N;",
        report=rf"{WRONG_RESULT}|AssertionError: gradient for \w+ has NaN",
    ),
    _blocks(
        "position_gradients_second_pack_of_the_first",
        "deform_conv/cuda_position_gradients.cuh",
        old="load_corners(source + i * kApart,",
        new="load_corners(source,",
        report=WRONG_POSITION_GRADIENT,
    ),
    _blocks(
        "position_gradients_half_a_pair_past_the_row",
        "deform_conv/cuda_position_gradients.cuh",
        old="group_packs % (2 * kMostRowThreads) == 0",
        new="group_packs % kMostRowThreads == 0",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _blocks(
        "position_gradients_tap_of_the_first",
        "deform_conv/cuda_position_gradients.cuh",
        old="      column += chunk.group_channels;\n",
        new="",
        report=WRONG_POSITION_GRADIENT,
    ),
    _blocks(
        "position_gradients_written_to_the_first_taps",
        "deform_conv/cuda_position_gradients.cuh",
        old="static_cast<int>(chunk.shape.taps()) + block.first_tap;",
        new="static_cast<int>(chunk.shape.taps());",
        report=r"AssertionError: gradient for (offset|mask) ",
    ),
    _blocks(
        "border_not_filled_in_pairs",
        "deform_conv/cuda_position_gradients.cuh",
        old="if (is_border(planned, slopes, place)) {",
        new="if (!resample && is_border(planned, slopes, place)) {",
        report=r"AssertionError: weight differs",
        tests=(*BLOCK_TESTS, "exactly_minus_1"),
    ),
    _blocks(
        "border_not_filled",
        "deform_conv/cuda_position_gradients.cuh",
        old="if (border) {",
        new="if (border && !resample) {",
        report=r"AssertionError: weight differs",
        tests=(*BLOCK_TESTS, "exactly_minus_1"),
    ),
    _blocks(
        "border_without_a_derivative",
        "deform_conv/cuda_tap_block.cuh",
        old="inside || keep_border ?",
        new="inside && (keep_border || inside) ?",
        report=r"AssertionError: gradient for offset",
        tests=(*BLOCK_TESTS, "exactly_minus_1"),
    ),
    _parts(
        "slices_halved_once_too_often",
        old="parts.slice_packs / 2 >= least_packs && blocks() < wanted_blocks",
        new="parts.slice_packs / 2 >= least_packs && blocks() <= wanted_blocks",
    ),
    _parts(
        "slices_never_halved_to_the_least",
        old="parts.slice_packs / 2 >= least_packs",
        new="parts.slice_packs / 2 > least_packs",
    ),
    _parts(
        "taps_divided_once_too_often",
        old="parts.taps > 1 && blocks() < wanted_blocks",
        new="parts.taps > 1 && blocks() <= wanted_blocks",
    ),
    _parts(
        "waves_of_one_tap_not_tried",
        old="parts <= taps; ++parts",
        new="parts < taps; ++parts",
    ),
    _parts(
        "waves_without_the_plan",
        old="wave) * (in_block + 1);",
        new="wave) * in_block;",
    ),
    _parts(
        "output_of_any_size",
        file="deform_conv/cuda_countable.h",
        old="shape.out_height <= kMost / shape.out_width",
        new="shape.out_height <= kMost",
        report=r"Failed: DID NOT RAISE",
    ),
    _tap_order(
        "nine_taps_but_one",
        old="""    for (int pack = 0; pack < kTaps; ++pack) {
      Real ordered""",
        new="""    for (int pack = 0; pack < kTaps - 1; ++pack) {
      Real ordered""",
    ),
    _tap_order(
        "nine_taps_in_their_old_order",
        old="value[element % kTaps * M + element / kTaps]",
        new="value[element]",
    ),
    _tap_order(
        "nine_taps_of_the_first_source",
        old="read(from + i * elements, from_step, more);",
        new="read(from, from_step, more);",
    ),
    _tap_order(
        "nine_taps_without_the_last_source",
        old="""#pragma unroll 1
    for (int i = 1; i < count; ++i) {""",
        new="""#pragma unroll 1
    for (int i = 1; i < count - 1; ++i) {""",
    ),
    _tap_order(
        "nine_taps_taken_as_aligned",
        old=" && aligned(source, sizeof(From)) &&",
        new=" &&",
        report=r"kernel ForEachIndex<ReorderNineTaps<.*accesses \d+ bytes at .*, which is not aligned",
    ),
    _tap_order(
        "nine_taps_of_a_target_taken_as_aligned",
        old="""aligned(source, sizeof(From)) &&
      aligned(target, sizeof(T))) {""",
        new="""aligned(source, sizeof(From))) {""",
        report=r"kernel ForEachIndex<ReorderNineTaps<.*accesses \d+ bytes at .*, which is not aligned",
    ),
    _tap_order(
        "taps_of_the_first_source",
        old="static_cast<RealOf<T>>(at[i * elements]);",
        new="static_cast<RealOf<T>>(*at);",
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
    _lists(
        "lists_missing_barrier",
        "deform_conv/cuda_invert_taps.cuh",
        old="""    RESNET_CUDA_SYNC_BLOCK();
    int to = held""",
        new="""    int to = held""",
        report=r"kernel InvertTaps<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _lists(
        "lists_missing_barrier_before_weighing",
        "deform_conv/cuda_invert_taps.cuh",
        old="""    RESNET_CUDA_SYNC_BLOCK();
    return total;""",
        new="""    return total;""",
        report=r"kernel InvertTaps<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _lists(
        "lists_kept_boxes_past_the_buffer",
        "deform_conv/cuda_invert_taps.cuh",
        old="kept <= kMostKept - kRoundBoxes",
        new="kept <= kMostKept",
        report=r"kernel InvertTaps<.*index \d+ of 2048 elements of shared memory",
        tests=(*LIST_TESTS, "boxes_around_the_size_of_a_round and 1.0"),
    ),
    _deform_conv(
        "bias_missing_barrier",
        "deform_conv/cuda_bias_sums.cuh",
        old="""      RESNET_CUDA_SYNC_BLOCK();
      for (int i = device::thread()""",
        new="""      for (int i = device::thread()""",
        report=r"kernel SumRows<.*(race on word \d+ of shared memory|which no thread has set)",
        tests=BIAS_TESTS,
    ),
    _deform_conv(
        "bias_row_of_the_next_block",
        "deform_conv/cuda_bias_sums.cuh",
        old="row < end; row += sharers",
        new="row <= end; row += sharers",
        report=r"AssertionError|assert ",
        tests=BIAS_TESTS,
    ),
    _deform_conv(
        "bias_of_the_last_chunk_only",
        "deform_conv/cuda_bias_sums.cuh",
        old="*at = first ? total : *at + total;",
        new="*at = total;",
        report=r"AssertionError: gradient for bias is off by",
    ),
    _lists(
        "lists_lost_upper_edge",
        "deform_conv/cuda_invert_taps.cuh",
        old="box[i].last_row >= first_row &&",
        new="box[i].last_row > first_row &&",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "every_place_around_a_tile"),
    ),
    _lists(
        "lists_lost_lower_edge",
        "deform_conv/cuda_invert_taps.cuh",
        old="box[i].first_row <= last_row &&",
        new="box[i].first_row < last_row &&",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "every_place_around_a_tile"),
    ),
    _lists(
        "lists_lost_right_edge",
        "deform_conv/cuda_invert_taps.cuh",
        old="box[i].first_column <= last_column;",
        new="box[i].first_column < last_column;",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "every_place_around_a_tile"),
    ),
    _lists(
        "lists_box_of_half_a_warp",
        "deform_conv/cuda_tap_corners.cuh",
        old="for (int distance = device::kWarp / 2;",
        new="for (int distance = device::kWarp / 4;",
        report=LISTS_DIFFER,
    ),
    _lists(
        "lists_unordered_append",
        "deform_conv/cuda_invert_taps.cuh",
        old="left_end + device::count_bits(left_ballot & block.lower_lanes())",
        new="left_end + device::count_bits(left_ballot & ~block.lower_lanes()) - 1",
        report=LISTS_DIFFER,
    ),
    _lists(
        "lists_unordered_boxes",
        "deform_conv/cuda_invert_taps.cuh",
        old="to += i < block.warp ? warp_total : 0;",
        new="to += i > block.warp ? warp_total : 0;",
        report=LISTS_DIFFER,
    ),
    _lists(
        "lists_tile_missed",
        "deform_conv/cuda_input_tiles.cuh",
        old="down_(static_cast<int>(ceil_div(height, kInputTileRows))),",
        new="down_(height < kInputTileRows ? 1 : height / kInputTileRows),",
        report=r"AssertionError",
    ),
    _lists(
        "lists_hits_beyond_the_buffer_dropped",
        "deform_conv/cuda_invert_taps.cuh",
        old="return Pass::kCount;",
        new="return Pass::kDone;",
        report=r"AssertionError",
        tests=(*LIST_TESTS, "size_of_the_buffer"),
    ),
    _lists(
        "lists_hits_that_just_do_not_fit",
        "deform_conv/cuda_invert_taps.cuh",
        old="if (held > kHits) {",
        new="if (held > kHits + 1) {",
        report=r"AssertionError|kernel InvertTaps<",
        tests=(*LIST_TESTS, "size_of_the_buffer"),
    ),
    _lists(
        "lists_second_round_forgotten",
        "deform_conv/cuda_invert_taps.cuh",
        old="first_box + kRoundBoxes >= boxes;",
        new="first_box + 2 * kRoundBoxes >= boxes;",
        report=r"AssertionError",
        tests=(*LIST_TESTS, "boxes_around_the_size_of_a_round and not outer"),
    ),
    _lists(
        "lists_last_outer_boxes_forgotten",
        "deform_conv/cuda_invert_taps.cuh",
        old="first_outer == 0 || first_outer < image_outer;",
        new="first_outer == 0 || first_outer + kRoundBoxes < image_outer;",
        report=r"AssertionError",
        tests=(*LIST_TESTS, "outer_boxes_around"),
    ),
    _lists(
        "lists_outer_box_too_small",
        "deform_conv/cuda_tap_corners.cuh",
        old="image_outer.remainder(outer) * device::kWarp + lane;",
        new="image_outer.remainder(outer) * device::kWarp + lane / 2;",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "boxes_around_the_size_of_a_round and 0.05"),
    ),
    _lists(
        "lists_weights_outside_the_tile",
        "deform_conv/cuda_invert_taps.cuh",
        old="const Real weight = inside ? sample.corner_weight(corner) * mask : Real(0);",
        new="const Real weight = inside || held > 0 ? sample.corner_weight(corner) * mask : Real(0);",
        report=r"kernel InvertTaps<.*index -?\d+ of 64 elements|AssertionError",
    ),
    _lists(
        "lists_of_the_first_image",
        "deform_conv/cuda_invert_taps.cuh",
        old="first_box = image_of_group * body.image_boxes;",
        new="first_box = 0;",
        report=LISTS_DIFFER,
    ),
    _lists(
        "lists_long_ones_forgotten",
        "deform_conv/cuda_invert_taps.cuh",
        old="if (is_long_list(length[i])) {",
        new="if (is_long_list(length[i] - 1)) {",
        report=r"AssertionError",
        tests=(*LIST_TESTS, "length_of_long_ones"),
    ),
    _sizes(
        "one_image_too_many_per_chunk",
        old="const int64_t most = std::min(chunk_budget / image_bytes,",
        new="const int64_t most = std::min((chunk_budget + 1) / image_bytes,",
    ),
    _sizes(
        "one_image_too_few_per_chunk",
        old="const int64_t most = std::min(chunk_budget / image_bytes,",
        new="const int64_t most = std::min((chunk_budget - 1) / image_bytes,",
    ),
    _sizes(
        "one_chunk_too_many_per_batch_of_lists",
        old="(budget - images * image_bytes) / needs.image_lists / images;",
        new="(budget - images * image_bytes + 1) / needs.image_lists / images;",
    ),
    _sizes(
        "sums_beside_the_budget",
        old="workspace - needs.per_call - needs.sums,",
        new="workspace - needs.per_call,",
    ),
    _deform_conv(
        "gather_skips_the_last_entry",
        "deform_conv/cuda_gather_input.cuh",
        old="add(range.begin, range.begin + range.length, rows_of",
        new="add(range.begin, range.begin + range.length - 1, rows_of",
        report=r"AssertionError: gradient for input is off by ",
    ),
    _deform_conv(
        "gather_list_that_nobody_sums",
        "deform_conv/cuda_gather_input.cuh",
        old="if (!exists || is_long_list(range.length) || adds_nothing) {",
        new="if (!exists || is_long_list(range.length + 1) || adds_nothing) {",
        report=r"AssertionError: gradient for input",
        tests=("test_deform_conv.py", "-k", "test_lists_around"),
    ),
    _deform_conv(
        "gather_lists_of_the_first_chunk",
        "deform_conv/cuda_gather_input.cuh",
        old="offset_group * lists.images + division.first_image + image;",
        new="offset_group * lists.images + image;",
        report=r"AssertionError: gradient for input",
        tests=("test_deform_conv.py", "-k", "test_several_batches_of_lists and float32"),
    ),
    _deform_conv(
        "gather_second_pack_of_the_first",
        "deform_conv/cuda_gather_input.cuh",
        old="load_constant_pack<N>(row + i * kMostRowThreads * N)",
        new="load_constant_pack<N>(row)",
        report=r"AssertionError: gradient for input",
        tests=("test_deform_conv.py", "-k", "test_two_packs"),
    ),
    _deform_conv(
        "long_lists_missing_barrier_between_lists",
        "deform_conv/cuda_gather_input.cuh",
        old="""    RESNET_CUDA_SYNC_BLOCK();
  }
};""",
        new="""  }
};""",
        report=r"kernel GatherInput<.*race on word \d+ of shared memory",
        tests=LONG_LIST_TESTS,
    ),
    _deform_conv(
        "long_lists_of_other_chunks",
        "deform_conv/cuda_gather_input.cuh",
        old="offset_group * lists.images - division.first_image;",
        new="offset_group * lists.images;",
        report=r"AssertionError: gradient for input|AddressSanitizer",
        tests=("test_deform_conv.py", "-k", "test_several_batches_of_lists and float32"),
    ),
    _deform_conv(
        "weight_products_left_out",
        "deform_conv/cuda_weight_sums.cuh",
        old="for (int i = 1; i < count; ++i) {",
        new="for (int i = 2; i < count; ++i) {",
        report=r"AssertionError: gradient for weight is off by ",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
    ),
    _deform_conv(
        "weight_gradient_of_the_last_chunk_only",
        "deform_conv/cuda_weight_sums.cuh",
        old="sum += products[i * elements + index];",
        new="sum = products[i * elements + index];",
        report=r"AssertionError: gradient for weight is off by ",
        tests=("test_deform_conv.py", "-k", "test_values_and_gradients and tiles"),
    ),
    _deform_conv(
        "bias_of_the_next_output",
        "deform_conv/deform_conv_cuda.cu",
        old="bias + row_packs.remainder(index) * N",
        new="bias + row_packs.remainder(index + 1) * N",
        report=r"AssertionError: output is off by ",
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
