"""Bugs of the reordering of the weight and its gradient."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug

_tap_order = partial(
    PlantedBug,
    file="deform_conv/cuda_tap_order.cuh",
    report=r"AssertionError: \d+ of \d+ differ",
    library="tap_order",
    tests=("test_tap_order.py",),
)

BUGS = (
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
        old=" && is_aligned(source, kChannels * sizeof(From)) &&",
        new=" &&",
        report=r"kernel ForEachIndex<ReorderNineTaps<.*accesses \d+ bytes at .*, which is not aligned",
    ),
    _tap_order(
        "nine_taps_of_a_target_taken_as_aligned",
        old=" &&\n      is_aligned(target, kChannels * sizeof(T))) {",
        new=") {",
        report=r"kernel ForEachIndex<ReorderNineTaps<.*accesses \d+ bytes at .*, which is not aligned",
    ),
    _tap_order(
        "taps_of_the_first_source",
        old="static_cast<RealOf<T>>(at[i * elements]);",
        new="static_cast<RealOf<T>>(*at);",
    ),
)
