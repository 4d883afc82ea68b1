"""Bugs of the fused forward: barriers and waits left out, memory that is used too early, tiles, images, channels."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE, NO_FENCE

_fused = partial(
    PlantedBug,
    file="deform_conv/cuda_fused_forward.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_forward.py", "-k", "near_float64"),
)
_OFF = r"AssertionError: output (is off by|has NaN)"

BUGS = (
    _fused(
        "fused_without_a_fence",
        old="          device::fence_async_proxy();\n",
        new="",
        report=NO_FENCE,
    ),
    _fused(
        "fused_without_a_wait_for_the_weight",
        old="      full_weights(weight_ring.stage).wait(weight_ring.parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _fused(
        "fused_samples_one_phase_early",
        old="    Samples samples(0);\n",
        new="    Samples samples(1);\n",
        report=EARLY_READ + r"|the parity no longer says which",
    ),
    _fused(
        "fused_a_step_past_the_end",
        old="step < steps; ++step",
        new="step <= steps; ++step",
        report=r"deadlock: .*at the barrier at byte \d+, whose phase \d+ lacks \d of \d arrivals",
    ),
    _fused(
        "fused_samples_overwritten_early",
        old="          empty_samples(samples.stage).wait(samples.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _fused(
        "fused_stage_released_while_it_is_read",
        old="empty_samples(last_samples).arrive();",
        new="empty_samples((last_samples + 1) % kSampleStages).arrive();",
        report=EARLY_WRITE + r"|deadlock: ",
    ),
    _fused(
        "fused_swizzle_of_one_row",
        file="deform_conv/cuda_fused_producer.cuh",
        old="tile.set(device::swizzled(at) / kPackBytes,",
        new="tile.set((at / device::kSwizzledRow == 5 ? at : device::swizzled(at)) / kPackBytes,",
        report=_OFF,
    ),
    _fused(
        "fused_plan_overwritten_early",
        old="          device::sync_threads(1, kProducers);  // all are done with the plan before\n",
        new="",
        report=r"race on word \d+ of shared memory",
    ),
    _fused(
        "fused_plan_read_early",
        old="          device::sync_threads(1, kProducers);\n          planned_group",
        new="          planned_group",
        report=r"race on word \d+ of shared memory|, which no thread has set",
    ),
    _fused(
        "fused_corners_of_the_first_image",
        old="planned.corner[i] + mine.image * image_packs;",
        new="planned.corner[i] + 0 * image_packs;",
        report=_OFF,
    ),
    _fused(
        "fused_weight_of_the_first_column_tile",
        old="weights + here.number * call",
        new="weights + here.group * call.column_tiles.divisor() * call",
        report=_OFF,
    ),
    _fused(
        "fused_bias_of_the_first_group",
        old="bias + first_channel + column",
        new="bias + here.first_column + column",
        report=_OFF,
    ),
    _fused(
        "fused_results_while_samples_are_read",
        old="    device::sync_threads(2, kConsumers);  // both",
        new="    // both",
        report=EARLY_WRITE,
    ),
    _fused(
        "fused_packs_of_the_results_in_their_old_places",
        old="packs.get(row * kRowPacks + (index % kRowPacks ^ row % 8))",
        new="packs.get(row * kRowPacks + index % kRowPacks)",
        report=_OFF,
    ),
)
