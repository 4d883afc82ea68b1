"""Bugs of the deformable convolution's chunks, products and gradients."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import WRONG_RESULT, PlantedBug

_deform_conv = partial(
    PlantedBug,
    library="operators/deform_conv",
    tests=("test_deform_conv.py", "-k", "test_values_and_gradients and (plain or offset_groups_3 or kernel_2x4)"),
)
_sizes = partial(
    PlantedBug,
    file="deform_conv/cuda_workspace.h",
    report=r"AssertionError|assert ",
    library="index",
    tests=("test_index.py", "-k", "chunks_at_their_budgets"),
)
BIAS_TESTS = ("test_bias_sums.py", "-k", "whole_numbers")
LONG_LIST_TESTS = ("test_deform_conv.py", "-k", "test_offsets_onto_one_pixel and float32")

BUGS = (
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
        "relu_only_beside_a_bias",
        "deform_conv/deform_conv_cuda.cu",
        old="if (bias || relu) {",
        new="if (bias) {",
        report=r"AssertionError: output",
        tests=("test_deform_conv.py", "-k", "test_relu_in_the_epilogue and float32-None"),
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
