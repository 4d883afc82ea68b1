"""Bugs of the uniform fused forward: waits and barriers left out, stages freed too early, parts of warpgroups."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE

_uniform = partial(
    PlantedBug,
    file="deform_conv_fused/cuda_forward_uniform.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_forward.py", "-k", "near_float64 and 1u"),
)
_shared = partial(_uniform, file="deform_conv_fused/cuda_forward.cuh")
_sections = partial(_uniform, file="deform_conv_fused/cuda_forward_sections.cuh")
_results = partial(_uniform, file="deform_conv_fused/cuda_forward_results.cuh")
_OFF = r"AssertionError: output (is off by|has NaN)"

_RACE = r"race on word \d+ of shared memory"

BUGS = (
    _uniform(
        "uniform_samples_overwritten_early",
        old="      empty_samples(sampled.stage).wait(sampled.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _shared(
        "uniform_weight_overwritten_early",
        old="    empty_weights(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ + "|" + _OFF,
    ),
    _uniform(
        "uniform_stage_released_while_it_is_read",
        old="    device::wait_products<1>();\n",
        new="    device::wait_products<2>();\n",
        report=EARLY_WRITE + "|" + _OFF,
    ),
    _uniform(
        "uniform_first_stage_released_always",
        old="kSampleStages - 1 : multiplied.stage - 1;",
        new="kSampleStages - 1 : 0;",
        report=r"deadlock: |of its phase \d+ have arrived|the parity no longer says which|" + EARLY_WRITE,
    ),
    _uniform(
        "uniform_without_the_last_products",
        old="  start_products();\n  device::finish_products(sums);",
        new="  device::finish_products(sums);",
        report=_OFF + "|that no product has set",
    ),
    _sections(
        "uniform_plan_overwritten_early",
        old="        device::sync_threads(1, kProducers);  // all are done with the plan before\n",
        new="",
        report=_RACE,
    ),
    _sections(
        "uniform_plan_read_early",
        old="        device::sync_threads(1, kProducers);\n        const int64_t first_part",
        new="        const int64_t first_part",
        report=_RACE + "|, which no thread has set",
    ),
    _results(
        "uniform_results_while_samples_are_read",
        old="  device::sync_threads(2, kConsumers);\n",
        new="",
        report=EARLY_WRITE,
    ),
    _uniform(
        "uniform_weight_of_the_first_tap",
        old="parts + static_cast<int64_t>(part) * kPartElements",
        new="parts + static_cast<int64_t>(part / 2) * kPartElements",
        report=_OFF,
    ),
    _uniform(
        "uniform_weight_of_the_taps_planned_before",
        old="part += steps.taps - steps.tap_count;",
        new="part += 0 * steps.taps;",
        report=_OFF,
    ),
    _uniform(
        "uniform_first_tap_of_every_part_of_k",
        old="int tap = steps.begin - slice * steps.tap_count;",
        new="int tap = 0 * slice;",
        tests=("test_fused_forward.py", "-k", "near_float64 and 3u"),
        report=_OFF,
    ),
    _shared(
        "uniform_columns_by_rows",
        old="column_part = kColumnParts > 1 ? beyond_rows : 0",
        new="column_part = kColumnParts > 1 ? warpgroup % kRowParts : 0",
        report=_OFF,
    ),
    _shared(
        "uniform_the_same_channels_by_both_warpgroups",
        old="depth = kDepthParts > 1 ? beyond_rows * kPartProducts * kStep : 0",
        new="depth = 0",
        report=_OFF,
    ),
    _results(
        "uniform_sums_read_before_they_are_there",
        old="  device::sync_threads(2, kThreads);\n",
        new="",
        report=_RACE + "|, which no thread has set",
    ),
    _results(
        "uniform_results_over_sums_that_are_read",
        old="  device::sync_threads(3 + in_half / device::kWarpgroup, device::kWarpgroup);  // all",
        new="  // all",
        report=_RACE,
    ),
    _results(
        "uniform_sums_of_the_first_rows_to_all",
        old="kSamples + in_half / device::kWarpgroup * kExchangedBytes, kPacks",
        new="kSamples + 0 * in_half / device::kWarpgroup * kExchangedBytes, kPacks",
        report=_RACE + "|" + _OFF,
    ),
    _uniform(
        "uniform_rows_of_the_second_sampled_as_the_first",
        file="deform_conv_fused/cuda_producer.cuh",
        old="plan.get(step.planned(row)).corner, corner[row]",
        new="plan.get(step.planned(0)).corner, corner[row]",
        report=_OFF,
    ),
)
