"""Bugs of the fused gradient for the weight: barriers and waits, steps and sums lost or added twice, operands."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE, NO_FENCE

_OFF = r"AssertionError: gradient for weight (is off by|has NaN)"
_fused = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_weight_gradient.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_weight_gradient.py", "-k", "exact_sums"),
)
_stream = partial(_fused, file="deform_conv_fused/cuda_stream_k.cuh", report=_OFF)
_host = partial(_fused, file="deform_conv_fused/deform_conv_fused_weight_gradient_sm90a.cu", report=_OFF)
_parts = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_packed_output_gradient.cuh",
    report=r"AssertionError: \d+ of \d+ elements differ",
    library="packed_output_gradient",
    tests=("test_packed_output_gradient.py",),
)

BUGS = (
    _fused(
        "weight_gradient_without_a_fence",
        old="    device::fence_async_proxy();",
        new="   ",
        report=NO_FENCE,
    ),
    _fused(
        "weight_gradient_without_a_wait_for_a_full_stage",
        old="    full(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _fused(
        "weight_gradient_consumers_one_phase_early",
        old="    Stages ring(0);\n",
        new="    Stages ring(1);\n",
        report=EARLY_READ + r"|the parity no longer says which",
    ),
    _fused(
        "weight_gradient_a_step_past_the_end",
        old="the stage before\n#pragma unroll 1\n      for (int step = part.first; step < part.end;",
        new="the stage before\n#pragma unroll 1\n      for (int step = part.first; step <= part.end;",
        report=r"deadlock: .*at the barrier at byte \d+, whose phase \d+ lacks \d+ of \d+ arrivals|" + _OFF,
    ),
    _fused(
        "weight_gradient_stage_overwritten_early",
        old="      empty(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _fused(
        "weight_gradient_stage_released_while_it_is_read",
        old="          empty(last).arrive();\n        }\n        last",
        new="          empty(ring.stage).arrive();\n        }\n        last",
        report=EARLY_WRITE + r"|deadlock: |of its phase \d+ have arrived",
    ),
    _fused(
        "weight_gradient_last_stage_of_a_tile_kept",
        old="      if (thread % device::kWarp == 0) {\n        empty(last).arrive();\n      }\n      write",
        new="      write",
        report=r"deadlock: .*lacks \d+ of \d+ arrivals",
    ),
    _fused(
        "weight_gradient_bytes_that_nobody_copies",
        old="arrive_and_expect(kGradBytes)",
        new="arrive_and_expect(kGradBytes + 16)",
        report=r"deadlock: ",
    ),
    _fused(
        "weight_gradient_warp_not_waited_for",
        old="      RESNET_CUDA_SYNC_WARP();\n      if (lane",
        new="      if (lane",
        report=r"race on word \d+ of shared memory|without a fence_async_proxy|" + EARLY_READ,
    ),
    _fused(
        "weight_gradient_plan_read_early",
        old="      RESNET_CUDA_SYNC_WARP();\n    };",
        new="    };",
        report=r"race on word \d+ of shared memory|, which no thread has set",
    ),
    _fused(
        "weight_gradient_plan_overwritten_early",
        old="        buffer ^= 1;\n",
        new="",
        report=_OFF + r"|race on word \d+ of shared memory",
    ),
    _fused(
        "weight_gradient_sums_go_on_into_the_next_tile",
        old="multiply(thread, ring, step > part.first, own);",
        new="multiply(thread, ring, place > call.stream.begin(device::block()) || step > part.first, own);",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_samples_in_rows_not_swizzled",
        file="deform_conv_fused/cuda_producer.cuh",
        old="return first_byte + index",
        new="return (first_row == 5 ? first_row * device::kSwizzledRow + chunk * kPackBytes : first_byte) + index",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_both_units_of_one_plan",
        old="source.plans == 1 ? 0 : kPixels",
        new="0",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_offset_group_of_the_first_group",
        old="const int slice = source.tile.group * call.slices.divisor() + at.slice;\n      source.tap",
        new="const int slice = at.slice;\n      source.tap",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_corners_of_the_first_image",
        old="planned.corner[corner] + first;",
        new="planned.corner[corner] + 0 * first;",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_positions_one_step_late",
        old="step + 1 + kPlannedSteps + lane_step, row);",
        new="step + kPlannedSteps + lane_step, row);",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_parts_of_the_first_group",
        old="call.parts.channel_parts() + tile.group * call.parts.group_parts;",
        new="call.parts.channel_parts();",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_last_block_left_out",
        file="deform_conv_fused/cuda_weight_tile_sums.cuh",
        old="block <= last; ++block",
        new="block < last; ++block",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_first_block_twice",
        file="deform_conv_fused/cuda_weight_tile_sums.cuh",
        old="    float sum[4] = {0, 0, 0, 0};\n    const int64_t first = call.stream.first_block(number);\n",
        new="    float sum[4] = {0, 0, 0, 0};\n    int64_t first = call.stream.first_block(number);\n"
        "    first -= first > 0 ? 1 : 0;\n",
        report=_OFF,
    ),
    _fused(
        "weight_gradient_chunks_before_left_out",
        file="deform_conv_fused/cuda_weight_tile_sums.cuh",
        old="before == nullptr ? sum[i] : before[place] + sum[i]",
        new="sum[i]",
        report=_OFF,
    ),
    _stream(
        "stream_sums_of_two_blocks_in_one_place",
        old="    return block + tile;\n",
        new="    return 0 * block + tile;\n",
    ),
    _stream(
        "stream_block_of_the_step_after",
        old="total_.quotient((place + 1) * blocks_.divisor() - 1)",
        new="total_.quotient((place + 1) * blocks_.divisor())",
    ),
    _host(
        "weight_gradient_images_of_the_first_chunk",
        old="const int64_t first = call.first_image * shape_",
        new="const int64_t first = 0 * shape_",
    ),
    _host(
        "weight_gradient_total_rounded_per_chunk",
        old="image + count < shape_.batch",
        new="image + count < 0 * shape_.batch",
    ),
    _parts("packed_output_gradient_not_swizzled", old="device::swizzled(row *", new="(row *"),
    _parts("packed_output_gradient_of_pixels_past_the_last", old="pixel < layout.pixels && channel", new="channel"),
    _parts(
        "packed_output_gradient_into_the_next_group",
        old="if (channel + i < group_out_channels) {",
        new="{",
    ),
    _parts(
        "packed_output_gradient_up_to_64_pixels_only",
        old="kPixelMultiple = 128",
        new="kPixelMultiple = 64",
        report=r"assert 4096 == 8192",
    ),
    _parts(
        "packed_output_gradient_row_by_row",
        old="order.pixel(static_cast<int>(pixel - image * image_pixels.divisor()))",
        new="StripPixel{static_cast<int>(pixel - image * image_pixels.divisor()) / out_width, "
        "static_cast<int>(pixel - image * image_pixels.divisor()) % out_width}",
    ),
)
