"""Bugs of the fused forward without roles: waits and barriers left out, stages freed too early, halves of columns."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug
from emulation.planted_bugs.warpgroup import EARLY_READ, EARLY_WRITE

_uniform = partial(
    PlantedBug,
    file="deform_conv/cuda_fused_uniform.cuh",
    library="operators/deform_conv/own",
    tests=("test_fused_forward.py", "-k", "near_float64 and 1u"),
)
_OFF = r"AssertionError: output (is off by|has NaN)"

BUGS = (
    _uniform(
        "uniform_samples_overwritten_early",
        old="          empty_samples(sampled.stage).wait(sampled.parity);\n",
        new="",
        report=EARLY_WRITE + r"|of its phase \d+ have arrived|" + EARLY_READ,
    ),
    _uniform(
        "uniform_weight_overwritten_early",
        file="deform_conv/cuda_fused_forward.cuh",
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
        old="      freed.advance();\n",
        new="",
        report=r"deadlock: |of its phase \d+ have arrived|the parity no longer says which|" + EARLY_WRITE,
    ),
    _uniform(
        "uniform_without_the_last_products",
        old="  start_products();\n  device::finish_products(sums);",
        new="  device::finish_products(sums);",
        report=_OFF,
    ),
    _uniform(
        "uniform_plan_overwritten_early",
        old="      device::sync_threads(1, kThreads);  // all are done with the plan before\n",
        new="",
        report=r"race on word \d+ of shared memory",
    ),
    _uniform(
        "uniform_plan_read_early",
        old="      device::sync_threads(1, kThreads);\n#pragma unroll 1",
        new="#pragma unroll 1",
        report=r"race on word \d+ of shared memory|, which no thread has set",
    ),
    _uniform(
        "uniform_results_while_samples_are_read",
        old="  device::sync_threads(2, kThreads);  // all",
        new="  // all",
        report=EARLY_WRITE,
    ),
    _uniform(
        "uniform_weight_of_the_first_tap",
        old="parts + static_cast<int64_t>(tap) * kPartElements",
        new="parts + static_cast<int64_t>(tap / 2) * kPartElements",
        report=_OFF,
    ),
    _uniform(
        "uniform_columns_by_rows",
        file="deform_conv/cuda_fused_forward.cuh",
        old="warpgroup / kRowParts * kPartColumns * device::kSwizzledRow",
        new="warpgroup % kRowParts * kPartColumns * device::kSwizzledRow",
        report=_OFF,
    ),
    _uniform(
        "uniform_rows_of_the_second_sampled_as_the_first",
        file="deform_conv/cuda_fused_producer.cuh",
        old="plan.get(step.planned(row)).corner, corner[row]",
        new="plan.get(step.planned(0)).corner, corner[row]",
        report=_OFF,
    ),
)
