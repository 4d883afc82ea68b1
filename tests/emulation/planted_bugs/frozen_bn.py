"""Bugs of FrozenBatchNorm's passes."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug

_frozen_bn = partial(
    PlantedBug,
    library="operators/frozen_bn",
    tests=("test_frozen_bn.py", "-k", "float32 and (values or many_packs or begin_anywhere)"),
)

BUGS = (
    _frozen_bn(
        "frozen_bn_border_between_planes",
        "frozen_bn/cuda_contiguous.cuh",
        old="element < remaining[i] ?",
        new="element <= remaining[i] ?",
        report=r"AssertionError: (output|gradient for \w+) is off by",
    ),
    _frozen_bn(
        "frozen_bn_stride_not_whole_pixels",
        "frozen_bn/cuda_channels_last.cuh",
        old="stride = stride < period ? period : stride / period * period;",
        new="stride = stride < period ? period : stride;",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_unwritten_tail",
        "frozen_bn/cuda_channels_last.cuh",
        old="if (N > 1 && first < tail) {",
        new="if (N > 1 && first + 1 < tail) {",
        report=r"AssertionError: output has NaN at",
    ),
    _frozen_bn(
        "frozen_bn_unaligned_view",
        "frozen_bn/frozen_bn_cuda.cu",
        old="!is_aligned(one, kPackBytes)",
        new="!is_aligned(one, 4)",
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
    ),
    _frozen_bn(
        "frozen_bn_reads_a_pack_past_the_end",
        "frozen_bn/cuda_passes.cuh",
        old="if (first + i * stride < packs) {",
        new="if (first + i * stride <= packs) {",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _frozen_bn(
        "frozen_bn_writes_a_pack_past_the_end",
        "frozen_bn/cuda_contiguous.cuh",
        old="if (first + i * stride < packs) {",
        new="if (first + i * stride <= packs) {",
        report=r"AddressSanitizer: heap-buffer-overflow",
        sanitize=True,
    ),
    _frozen_bn(
        "frozen_bn_constants_of_the_first_pack",
        "frozen_bn/cuda_contiguous.cuh",
        old="round.pack[i], [&](int) { return constant[i]; }",
        new="round.pack[i], [&](int) { return constant[0]; }",
        report=r"AssertionError: (output|gradient for \w+) is off by",
    ),
    _frozen_bn(
        "frozen_bn_constants_of_the_next_pack",
        "frozen_bn/cuda_channels_last.cuh",
        old="channels.remainder(pack * N);",
        new="channels.remainder(pack * N + N);",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_last_round_missed",
        "frozen_bn/cuda_channels_last.cuh",
        old="if (pack >= packs) {",
        new="if (pack + 1 >= packs) {",
        report=r"AssertionError: output has NaN at",
        tests=("test_frozen_bn.py", "-k", "float32 and each_border"),
    ),
    _frozen_bn(
        "frozen_bn_one_block_too_few",
        "frozen_bn/frozen_bn_cuda.cu",
        old="launcher.launch(body.blocks, body);\n  } else {",
        new="launcher.launch(body.blocks - 1, body);\n  } else {",
        report=r"AssertionError: output has NaN at",
    ),
    PlantedBug(
        "frozen_bn_second_wave_too_early",
        "frozen_bn/cuda_grid.h",
        old="packs <= wave *",
        new="packs < wave *",
        report=r"assert 1056 == 528",
        library="index",
        tests=("test_index.py", "-k", "blocks_of_frozen_bn"),
    ),
    _frozen_bn(
        "frozen_bn_tail_of_one_channel",
        "frozen_bn/cuda_channels_last.cuh",
        old="channels.remainder(tail_channel + first)",
        new="channels.remainder(tail_channel)",
        report=r"AssertionError: output is off by",
    ),
    _frozen_bn(
        "frozen_bn_scale_of_the_first_channels_only",
        "frozen_bn/cuda_passes.cuh",
        old="for (int64_t channel = thread; channel < channels; channel += threads) {",
        new="if (const int64_t channel = thread; channel < channels && channel < threads) {",
        report=r"AssertionError: the scale is off",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_values"),
    ),
    _frozen_bn(
        "frozen_bn_statistics_taken_as_aligned",
        "frozen_bn/frozen_bn_cuda.cu",
        old="all_aligned({pass.weight, pass.bias, pass.mean, pass.variance})",
        new="all_aligned({pass.weight, pass.bias})",
        report=r"kernel FrozenBn\w+<.*accesses 16 bytes at .*, which is not aligned",
        tests=("test_frozen_bn.py", "-k", "float32 and layer_buffers_may_begin_anywhere"),
    ),
    _frozen_bn(
        "frozen_bn_dead_channel_divided_by_zero",
        "frozen_bn/frozen_bn_math.h",
        old="denominator == Real(0) ? Real(0) : usual",
        new="usual",
        report=r"AssertionError|assert ",
        tests=("test_frozen_bn.py", "-k", "float32 and variance_0_at_eps_0"),
    ),
)
