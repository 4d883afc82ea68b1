"""Bugs of the fused forward: barriers and waits left out, memory that is used too early, tiles, images, channels."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE, NO_FENCE

_fused = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_forward.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_forward.py", "-k", "near_float64"),
)
_tf32 = partial(_fused, tests=("test_fused_forward.py", "-k", "test_tf32"))
NOT_ROUNDED = r"wgmma in \S+:\d+ reads \S+, which was not rounded to TF32"
_specialised = partial(_fused, file="deform_conv_fused/cuda_forward_specialised.cuh")
_sections = partial(_fused, file="deform_conv_fused/cuda_forward_sections.cuh")
_sums = partial(_fused, file="deform_conv_fused/cuda_forward_split_sums.cuh")
_results = partial(_fused, file="deform_conv_fused/cuda_forward_results.cuh")
_OFF = r"AssertionError: output (is off by|has NaN)"

BUGS = (
    _fused(
        "fused_without_a_fence",
        old="    device::fence_async_proxy();",
        new="   ",
        report=NO_FENCE,
    ),
    _fused(
        "fused_fence_before_the_samples_are_there",
        old="    full_samples(samples.stage).wait(samples.parity);\n    device::fence_async_proxy();",
        new="    device::fence_async_proxy();\n    full_samples(samples.stage).wait(samples.parity);",
        report=NO_FENCE,
    ),
    _fused(
        "fused_without_a_wait_for_the_weight",
        old="    full_weights(weight_ring.stage).wait(weight_ring.parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _specialised(
        "fused_samples_one_phase_early",
        old="  Samples samples(0);\n",
        new="  Samples samples(1);\n",
        report=EARLY_READ + r"|the parity no longer says which",
    ),
    _specialised(
        "fused_a_step_past_the_end",
        old="step < steps; ++step",
        new="step <= steps; ++step",
        report=r"deadlock: .*at the barrier at byte \d+, whose phase \d+ lacks \d of \d arrivals",
    ),
    _specialised(
        "fused_samples_overwritten_early",
        old="    empty_samples(samples.stage).wait(samples.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _specialised(
        "fused_stage_released_while_it_is_read",
        old="    device::wait_products<0>();\n",
        new="",
        report=EARLY_WRITE,
    ),
    _fused(
        "fused_swizzle_of_one_row",
        file="deform_conv_fused/cuda_producer.cuh",
        old="return first_byte + index",
        new="return (first_row == 5 ? first_row * device::kSwizzledRow + chunk * kPackBytes : first_byte) + index",
        report=_OFF,
    ),
    _fused(
        "fused_corners_of_the_same_step_once_more",
        file="deform_conv_fused/cuda_producer.cuh",
        old="read_corners(next, read - Step::kCount);",
        new="read_corners(first < 0 ? next : here, read - Step::kCount);",
        report=_OFF,
    ),
    _fused(
        "fused_loads_from_the_slice_of_the_step_before",
        file="deform_conv_fused/cuda_producer.cuh",
        old="load(next, 0, pack_[0]);",
        new="load(first < 0 ? next : here, 0, pack_[0]);",
        report=_OFF,
    ),
    _fused(
        "fused_corners_one_row_late",
        file="deform_conv_fused/cuda_producer.cuh",
        old="read_corners(here, read);",
        new="read_corners(here, read - 1);",
        report=_OFF,
    ),
    _fused(
        "fused_burst_loaded_over_the_one_that_is_blended",
        file="deform_conv_fused/cuda_producer.cuh",
        old="pack_[loaded / kBurst % 2]",
        new="pack_[first / kBurst % 2]",
        report=_OFF,
    ),
    _fused(
        "fused_weights_of_the_first_row_of_a_burst",
        file="deform_conv_fused/cuda_producer.cuh",
        old="plan_.get(step.planned(first + i)).weight",
        new="plan_.get(step.planned(first)).weight",
        report=_OFF,
    ),
    _specialised(
        "fused_taps_of_a_slice_into_the_next_one",
        old="if (++tap == steps.tap_count) {",
        new="if (++tap == steps.tap_count + 1) {",
        report=_OFF + r"|index \d+ of \d+ elements of shared memory",
    ),
    _sections(
        "fused_plan_overwritten_early",
        old="        device::sync_threads(1, kProducers);  // all are done with the plan before\n",
        new="",
        report=r"race on word \d+ of shared memory",
    ),
    _sections(
        "fused_plan_read_early",
        old="        device::sync_threads(1, kProducers);\n        const int64_t first_part",
        new="        const int64_t first_part",
        report=r"race on word \d+ of shared memory|, which no thread has set",
    ),
    _sections(
        "fused_corners_of_the_first_image",
        old="planned.corner[corner] + image;",
        new="planned.corner[corner] + 0 * image;",
        report=_OFF,
    ),
    _sections(
        "fused_positions_of_the_first_images",
        old="call.first_image + here.image",
        new="here.image",
        tests=("test_fused_forward.py", "-k", "test_contiguous_input"),
        report=r"AssertionError: output differs",
    ),
    _sections(
        "fused_weight_of_the_first_column_tile",
        old="weights + here.number * call",
        new="weights + here.group * call.column_tiles.divisor() * call",
        report=_OFF,
    ),
    _results(
        "fused_bias_of_the_first_group",
        old="bias + first_channel + column",
        new="bias + here.first_column + column",
        report=_OFF,
    ),
    _results(
        "fused_results_while_samples_are_read",
        old="  device::sync_threads(2, kConsumers);\n",
        new="",
        report=EARLY_WRITE,
    ),
    _tf32(
        "fused_tf32_samples_not_rounded",
        file="deform_conv_fused/cuda_producer.cuh",
        old="    device::round_operands(sum);\n",
        new="",
        report=NOT_ROUNDED,
    ),
    _tf32(
        "fused_tf32_weight_not_rounded",
        file="deform_conv_fused/cuda_packed_weight.cuh",
        old="      device::round_operands(pack.element);\n",
        new="",
        report=NOT_ROUNDED,
    ),
    _tf32(
        "fused_tf32_slices_of_64_channels",
        file="deform_conv_fused/cuda_packed_weight.cuh",
        old="slice * device::kRowElementsOf<T> + in_part",
        new="slice * device::kRowElements + in_part",
        report=_OFF,
    ),
    _sums(
        "fused_last_part_of_k_left_out",
        old="split < splits; ++split",
        new="split < splits - 1; ++split",
        report=_OFF,
    ),
    _sums(
        "fused_first_part_of_k_twice",
        old="int split = 1;",
        new="int split = 0;",
        report=_OFF,
    ),
    _sums(
        "fused_bias_of_the_first_channels",
        old="bias + row_pairs.remainder(index) * N",
        new="bias",
        report=_OFF,
    ),
    _fused(
        "fused_a_step_in_two_parts_of_k",
        old="      first_step = call.splits.quotient(split * steps);",
        new="      first_step = call.splits.quotient(split * steps) - (split > 0 ? 1 : 0);",
        report=_OFF,
    ),
    _fused(
        "fused_a_step_in_no_part_of_k",
        old="call.splits.quotient((split + 1) * steps);",
        new="call.splits.quotient((split + 1) * steps) - (split == 0 && steps > 3 ? 1 : 0);",
        report=_OFF,
    ),
    _specialised(
        "fused_consumers_of_a_part_take_all_steps",
        old="const int steps = here.end_step - here.first_step;",
        new="const int steps = here.end_step - 0 * here.first_step;",
        report=r"deadlock: .*at the barrier at byte \d+, whose phase \d+ lacks \d of \d arrivals",
    ),
    _results(
        "fused_all_parts_of_k_into_one",
        old="const int64_t first = here.split * call.pixels;",
        new="const int64_t first = 0 * call.pixels;",
        report=_OFF,
    ),
    _results(
        "fused_packs_of_the_results_in_their_old_places",
        old="packs.get(row * kAtOncePacks + (index % kAtOncePacks ^ row % 8))",
        new="packs.get(row * kAtOncePacks + index % kAtOncePacks)",
        report=_OFF,
    ),
)
