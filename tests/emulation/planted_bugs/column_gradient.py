"""Bugs of the fused columns' gradient: barriers and waits, stages overwritten early, groups, tiles, partial sums."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE

_bug = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_column_gradient.cuh",
    library="column_gradient",
    tests=("test_column_gradient.py", "-k", "near_float64 or any_order"),
)
_epilogue = partial(_bug, file="deform_conv_fused/cuda_column_gradient_epilogue.cuh")
_OFF = r"AssertionError: gradient for \w+ (is off by|has NaN)"
_OFF_POSITION = r"AssertionError: gradient for (offset|mask) (is off by|has NaN)"
_OFF_COLUMNS = r"AssertionError: gradient for columns (is off by|has NaN)"
_DEADLOCK = r"deadlock: .*at the barrier at byte \d+, whose phase \d+ lacks "

BUGS = (
    _bug(
        "column_gradient_without_a_wait_for_the_weight",
        old="      full_weights(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _bug(
        "column_gradient_without_a_wait_for_the_gradient",
        old="        full_gradients(slice).wait(parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _bug(
        "column_gradient_weight_one_phase_early",
        old="    Weights ring(0);\n",
        new="    Weights ring(1);\n",
        report=EARLY_READ + r"|the parity no longer says which",
    ),
    _bug(
        "column_gradient_weight_overwritten_early",
        old="          empty_weights(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _bug(
        "column_gradient_pixels_overwritten_early",
        old="          empty_gradients().wait((gradients_phase(here, tap, tile) + 1) & 1);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _bug(
        "column_gradient_stage_released_while_it_is_read",
        old="      if (slice > 0 && thread % device::kWarp == 0) {\n        empty_weights(last).arrive();",
        new="      if (slice > 0 && thread % device::kWarp == 0) {\n        empty_weights(ring.stage).arrive();",
        report=EARLY_WRITE + r"|deadlock: |of its phase \d+ have arrived",
    ),
    _bug(
        "column_gradient_first_warpgroup_waits_for_its_first_turn",
        old="+ tile + 1 - warpgroup) & 1);",
        new="+ tile) & 1);",
        report=_DEADLOCK,
    ),
    _bug(
        "column_gradient_last_stage_never_released",
        old="        if (thread % device::kWarp == 0) {\n          empty_weights(last).arrive();\n",
        new="        if (thread % device::kWarp == 0 && last < 0) {\n",
        report=_DEADLOCK,
    ),
    _bug(
        "column_gradient_turn_never_given",
        old="          turn(1 - warpgroup).arrive();",
        new="          turn(warpgroup).arrive();",
        report=_DEADLOCK,
    ),
    _bug(
        "column_gradient_sums_read_early",
        old="        device::finish_products(sums);\n",
        new="",
        report=r"of a product that was not waited for|may still read|without having waited",
    ),
    _bug(
        "column_gradient_slices_of_the_gradient_past_the_end",
        old="slice < call.slices; ++slice) {\n      if (parity",
        new="slice <= call.slices; ++slice) {\n      if (parity",
        report=_DEADLOCK + r"|where none was made",
    ),
    _bug(
        "column_gradient_swizzle_of_one_row",
        file="deform_conv_fused/cuda_transposed_weight.cuh",
        old="const int place = device::swizzled(column * device::kSwizzledRow + chunk * kPackBytes);",
        new="const int at = column * device::kSwizzledRow + chunk * kPackBytes;\n"
        "    const int place = column == 5 ? at : device::swizzled(at);",
        report=_OFF,
    ),
    _bug(
        "column_gradient_columns_not_permuted",
        file="deform_conv_fused/cuda_transposed_weight.cuh",
        old="return column - in_part + in_part % 8 / 2 * 8 + in_part / 8 * 2 + in_part % 2;",
        new="return column - in_part + in_part;",
        report=_OFF,
    ),
    _epilogue(
        "column_gradient_rows_of_a_thread_exchanged",
        old="sums.get((column / 8 + j / 2) * 4 + 2 * i + j % 2)",
        new="sums.get((column / 8 + j / 2) * 4 + 2 * (1 - i) + j % 2)",
        report=_OFF,
    ),
    _bug(
        "column_gradient_corners_of_the_other_row",
        old="RESNET_CUDA_SHUFFLE(planned[j], first_lane + i)",
        new="RESNET_CUDA_SHUFFLE(planned[j], first_lane + 1 - i)",
        report=_OFF_POSITION,
    ),
    _bug(
        "column_gradient_corners_of_the_first_image",
        old="(own.image * chunk.input_pixels() + at) * pixel_packs",
        new="at * pixel_packs",
        report=_OFF_POSITION,
    ),
    _epilogue(
        "column_gradient_a_quarter_of_the_sum_left_out",
        old="      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 2);\n",
        new="",
        report=_OFF_POSITION,
    ),
    _epilogue(
        "column_gradient_a_partial_sum_added_twice",
        old="      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 2);\n",
        new="      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 2);\n"
        "      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 2);\n",
        report=_OFF_POSITION,
    ),
    _bug(
        "column_gradient_sums_of_the_first_tile_only",
        old="if (tile == offset_group * call.tiles.offset_group_tiles.divisor())",
        new="if (tile >= offset_group * call.tiles.offset_group_tiles.divisor())",
        report=_OFF_POSITION,
    ),
    _bug(
        "column_gradient_sums_of_the_tap_before",
        old="            dots[i] = Dots{};\n",
        new="            dots[i] = tap == here.first_tap ? Dots{} : dots[i];\n",
        report=_OFF_POSITION,
    ),
    _epilogue(
        "column_gradient_channels_past_a_tile",
        old="    if (first_column < channels) {\n",
        new="    if (channels > 0) {\n",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _bug(
        "column_gradient_output_channels_of_the_first_group",
        old="call.tiles.group_tiles.quotient(tile) * slices * kPartElements",
        new="0 * slices * kPartElements",
        report=_OFF,
    ),
    _bug(
        "column_gradient_weight_of_the_first_group",
        file="deform_conv_fused/cuda_transposed_weight.cuh",
        old="weight + (static_cast<int64_t>(group) * group_out_channels + first) * out_stride",
        new="weight + static_cast<int64_t>(first) * out_stride",
        report=_OFF,
    ),
    _bug(
        "column_gradient_weight_of_tap_0",
        old="static_cast<int64_t>(here.first_tap) * tiles * slices",
        new="int64_t{0} * tiles * slices",
        report=_OFF,
    ),
    _bug(
        "column_gradient_pixels_of_the_first_tile",
        old="grad + here.pixel_tile * kConsumerGroups",
        new="grad + 0 * kConsumerGroups",
        report=_OFF,
    ),
    _epilogue(
        "column_gradient_stored_by_group_without_its_rows",
        old="(group_rows + row + tap) * call.chunk.group_channels",
        new="(0 * group_rows + row + tap) * call.chunk.group_channels",
        report=_OFF_COLUMNS,
    ),
)
