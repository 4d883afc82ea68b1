"""Bugs of the input lists."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import LISTS_DIFFER, PlantedBug

_lists = partial(
    PlantedBug, library="lists", tests=("test_input_lists.py", "-k", "inverse_of_the_taps and float32 or around")
)
LIST_TESTS = ("test_input_lists.py", "-k")

BUGS = (
    _lists(
        "lists_missing_barrier",
        "deform_conv/cuda_invert_taps_search.cuh",
        old="""  RESNET_CUDA_SYNC_BLOCK();
  int to = held""",
        new="""  int to = held""",
        report=r"kernel InvertTaps<.*(race on word \d+ of shared memory|which no thread has set)",
    ),
    _lists(
        "lists_missing_barrier_before_weighing",
        "deform_conv/cuda_invert_taps_search.cuh",
        old="""  RESNET_CUDA_SYNC_BLOCK();
  return total;""",
        new="""  return total;""",
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
    _lists(
        "lists_lost_upper_edge",
        "deform_conv/cuda_invert_taps_search.cuh",
        old="box[i].last_row >= first_row &&",
        new="box[i].last_row > first_row &&",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "every_place_around_a_tile"),
    ),
    _lists(
        "lists_lost_lower_edge",
        "deform_conv/cuda_invert_taps_search.cuh",
        old="box[i].first_row <= last_row &&",
        new="box[i].first_row < last_row &&",
        report=LISTS_DIFFER,
        tests=(*LIST_TESTS, "every_place_around_a_tile"),
    ),
    _lists(
        "lists_lost_right_edge",
        "deform_conv/cuda_invert_taps_search.cuh",
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
        "deform_conv/cuda_invert_taps_lists.cuh",
        old="left_end + device::count_bits(left_ballot & block.lower_lanes())",
        new="left_end + device::count_bits(left_ballot & ~block.lower_lanes()) - 1",
        report=LISTS_DIFFER,
    ),
    _lists(
        "lists_unordered_boxes",
        "deform_conv/cuda_invert_taps_search.cuh",
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
        "deform_conv/cuda_invert_taps_lists.cuh",
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
        "deform_conv/cuda_invert_taps_lists.cuh",
        old="if (is_long_list(length[i])) {",
        new="if (is_long_list(length[i] - 1)) {",
        report=r"AssertionError",
        tests=(*LIST_TESTS, "length_of_long_ones"),
    ),
)
