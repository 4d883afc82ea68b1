"""Bugs of the uniform fused gradient for the weight: waits left out, plans of other steps, lost sums."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE

_uniform = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_weight_gradient_uniform.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_weight_gradient.py", "-k", "exact_sums and uniform"),
)
_shared = partial(_uniform, file="deform_conv_fused/cuda_weight_gradient.cuh")
_OFF = r"AssertionError: gradient for weight (is off by|has NaN)"
_RACE = r"race on word \d+ of shared memory"

BUGS = (
    _uniform(
        "uniform_weight_gradient_stage_overwritten_early",
        old="      empty(sampled.stage).wait(sampled.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _uniform(
        "uniform_weight_gradient_stage_released_while_it_is_read",
        old="      device::wait_products<1>();\n",
        new="      device::wait_products<2>();\n",
        report=EARLY_WRITE + "|" + _OFF,
    ),
    _uniform(
        "uniform_weight_gradient_last_stage_never_released",
        old="      empty(last).arrive();\n    }\n    write",
        new="    }\n    write",
        report=r"deadlock: ",
    ),
    _uniform(
        "uniform_weight_gradient_first_stage_released_twice",
        old="if (!first && lane == 0) {",
        new="if (lane == 0) {",
        report=r"deadlock: |of its phase \d+ have arrived|the parity no longer says which|" + EARLY_WRITE,
    ),
    _uniform(
        "uniform_weight_gradient_without_the_last_products",
        old="    start_products(part.end == part.first + 1);\n",
        new="",
        report=_OFF + r"|that no product has set|deadlock: |the parity no longer says which",
    ),
    _uniform(
        "uniform_weight_gradient_sums_go_on_into_the_next_tile",
        old="      multiply(thread, multiplied, !first, own);",
        new="      multiply(thread, multiplied, !first || place > call.stream.begin(device::block()), own);",
        report=_OFF,
    ),
    _uniform(
        "uniform_weight_gradient_first_plan_of_later_steps",
        old="step - in_plan + lane_step, row, lane_step",
        new="step + lane_step, row, lane_step",
        report=_OFF,
    ),
    _uniform(
        "uniform_weight_gradient_plan_used_once_too_often",
        old="planned = ++in_plan < kPlannedSteps;",
        new="planned = ++in_plan < kPlannedSteps + warp % 2;",
        report=_OFF + r"|index \d+ of \d+ elements of shared memory|" + _RACE,
    ),
    _uniform(
        "uniform_weight_gradient_plan_read_early",
        old="            plan);\n        RESNET_CUDA_SYNC_WARP();\n",
        new="            plan);\n",
        report=_RACE + "|, which no thread has set",
    ),
    _uniform(
        "uniform_weight_gradient_arrives_before_its_warp_has_written",
        old="samples_at(sampled.stage)), plan);\n      RESNET_CUDA_SYNC_WARP();\n",
        new="samples_at(sampled.stage)), plan);\n",
        report=EARLY_READ + "|without a fence_async_proxy|" + _RACE,
    ),
    _shared(
        "uniform_weight_gradient_the_same_pixels_by_both_warpgroups",
        old="first_pixel = kDepthParts > 1 ? warpgroup / kRowGroups * kDepthPixels : 0;",
        new="first_pixel = 0;",
        report=_OFF,
    ),
    _shared(
        "uniform_weight_gradient_sums_of_both_in_one_place",
        old="first_block = warpgroup / kRowGroups * kRowBlocks + ",
        new="first_block = ",
        report=_OFF + "|race on",
    ),
    _shared(
        "uniform_weight_gradient_offsets_of_steps_before_the_first",
        old="ahead.inside = needed && pixel < call.parts.pixels;",
        new="ahead.inside = (needed || pixel < call.parts.pixels) && pixel < call.parts.pixels;",
        sanitize=True,
        report="AddressSanitizer|runtime error: signed",
    ),
    _uniform(
        "uniform_weight_gradient_one_of_two_depth_parts",
        file="deform_conv_fused/cuda_weight_tile_sums.cuh",
        old="part < kDepthParts; ++part",
        new="part < 1; ++part",
        report=_OFF,
    ),
)
