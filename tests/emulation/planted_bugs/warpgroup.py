"""Bugs of kernels of warpgroups: barriers, fences and waits left out, wrong phases, swizzles, descriptors."""

from __future__ import annotations

from functools import partial

from emulation.planted_bugs.bug import PlantedBug

_product = partial(
    PlantedBug,
    file="warpgroup_product/cuda_warpgroup_product.cuh",
    library="operators/warpgroup_product/own",
    tests=("test_warpgroup.py", "-k", "test_product and bfloat16 and 128"),
)
_layer = partial(_product, file="common/warpgroup.cuh")

_OFF = r"AssertionError: assert \d+\.\d+ == 0"
EARLY_WRITE = (
    r"kernel \w+<.*(writes|copies to) bytes from \d+ on in \S+:\d+"
    r"(, which wgmma in \S+:\d+ may still read| without having waited until warp \d+ was done with wgmma)"
)
EARLY_READ = (
    r"(, which nobody has set|has not waited for the copy of|while the copy of \S+ is under way"
    r"|race on word \d+ of shared memory: thread \d+ reads, by wgmma, it)"
)
NO_FENCE = r"reads, by wgmma, word \d+ of .*, which thread \d+ wrote in .* without a fence_async_proxy\(\) in between"

BUGS = (
    _product(
        "no_fence_of_the_async_proxy",
        old="      device::fence_async_proxy();\n",
        new="",
        report=NO_FENCE,
    ),
    _product(
        "fence_of_the_async_proxy_after_the_arrival",
        old="""      device::fence_async_proxy();
      RESNET_CUDA_SYNC_WARP();
      if (thread % device::kWarp == 0) {
        full(ring.stage).arrive();
      }
""",
        new="""      RESNET_CUDA_SYNC_WARP();
      if (thread % device::kWarp == 0) {
        full(ring.stage).arrive();
      }
      device::fence_async_proxy();
""",
        report=NO_FENCE,
    ),
    _product(
        "no_barrier_of_the_warp_before_its_arrival",
        old="""      RESNET_CUDA_SYNC_WARP();
      if (thread""",
        new="""      if (thread""",
        report=EARLY_READ + "|without a fence_async_proxy",
    ),
    _product(
        "no_wait_for_a_full_stage",
        old="      full(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_READ,
    ),
    _product(
        "consumers_one_phase_early",
        old="device::Ring<kStages> ring(0);",
        new="device::Ring<kStages> ring(1);",
        report=EARLY_READ + r"|waits for phase -1 of the barrier at byte \d+ in .*: the parity no longer says which",
    ),
    _product(
        "producers_one_phase_late",
        old="device::Ring<kStages> ring(1);",
        new="device::Ring<kStages> ring(0);",
        report=r"deadlock: threads 0-255 at the barrier at byte \d+, whose phase 0 lacks 5 of 5 arrivals in \S+:\d+; "
        r"threads 256-383 at the barrier at byte \d+, whose phase 0 lacks 8 of 8 arrivals",
    ),
    _layer(
        "parity_stays",
        old="      parity ^= 1;\n",
        new="",
        report=r"waits for parity [01] of the barrier at byte \d+ in .* again: it has waited for phase",
    ),
    _product(
        "a_stage_is_filled_before_it_is_empty",
        old="      empty(ring.stage).wait(ring.parity);\n",
        new="",
        report=EARLY_WRITE + r"|, where all 5 of its phase \d+ have arrived|is under way|has not waited for the copy",
    ),
    _product(
        "a_stage_is_released_while_it_is_read",
        old="""last >= 0 && thread % device::kWarp == 0) {
        empty(last)""",
        new="""last >= -1 && thread % device::kWarp == 0) {
        empty(ring.stage)""",
        report=EARLY_WRITE,
    ),
    _product(
        "a_stage_is_released_two_products_early",
        old="device::wait_products<1>();",
        new="device::wait_products<2>();",
        report=EARLY_WRITE,
    ),
    _product(
        "one_consumer_too_few_is_waited_for",
        old="empty(stage).init(kConsumerWarps);",
        new="empty(stage).init(kConsumerWarps - 1);",
        report=EARLY_WRITE + r"|, where all 7 of its phase \d+ have arrived",
    ),
    _product(
        "sums_are_read_while_products_run",
        old="    device::finish_products(sums);\n",
        new="",
        report=r"reads sums in \S+:\d+ of a product that was not waited for|may still read",
    ),
    _product(
        "products_are_not_committed",
        old="      device::commit_products();\n",
        new="",
        report=EARLY_WRITE,
    ),
    _product(
        "products_without_a_fence_of_their_sums",
        old="      device::begin_products(sums);\n",
        new="",
        report=r"multiplies in \S+:\d+ without begin_products\(\)",
    ),
    _product(
        "the_first_product_adds",
        old="part > 0 || step > 0);",
        new="true);",
        report=r"adds in \S+:\d+ to sums that no product has set",
    ),
    _product(
        "fewer_bytes_expected_than_copied",
        old="arrive_and_expect(B::kBytes)",
        new="arrive_and_expect(B::kBytes - 16)",
        report=r"copies \d+ bytes in \S+:\d+ for the barrier at byte \d+, whose phase \d+ expects",
    ),
    _product(
        "more_bytes_expected_than_copied",
        old="arrive_and_expect(B::kBytes)",
        new="arrive_and_expect(B::kBytes + 16)",
        report=r"deadlock: .*whose phase 0 lacks 0 of 5 arrivals and 16 bytes",
    ),
    _product(
        "barriers_are_not_published",
        old="      device::publish_barriers();\n",
        new="",
        report=r"which thread 0 has made without publish_barriers\(\)",
    ),
    _product(
        "barriers_in_a_stage",
        old="kStagesB + kStages * B::kBytes;  // barriers",
        new="kStagesB + kStages * B::kBytes - 32;  // barriers",
        report=r"copies to word \d+ of shared memory in \S+:\d+, which belongs to a barrier|places bytes",
    ),
    _product(
        "no_barrier_before_the_stages_are_used_otherwise",
        old="    device::sync_threads(1, kConsumers);  // both are done with the stages\n",
        new="",
        report=EARLY_WRITE,
    ),
    _product(
        "no_barrier_between_writing_and_reading_the_result",
        old="""      device::sync_threads(2 + warpgroup, device::kWarpgroup);
      for""",
        new="""      for""",
        report=r"race on word \d+ of shared memory|, which no thread has set|has not waited for",
    ),
    _product(
        "one_named_barrier_for_both_warpgroups",
        old="""      device::sync_threads(2 + warpgroup, device::kWarpgroup);
      for""",
        new="""      device::sync_threads(2, device::kWarpgroup);
      for""",
        report=r"race on word \d+ of shared memory|reached the named barrier in \S+:\d+ while thread \d+ waits",
    ),
    _product(
        "more_registers_than_a_block_has",
        old="device::raise_registers<176>();",
        new="device::raise_registers<184>();",
        report=r"deadlock: .*at the setmaxnreg, for registers that others have",
    ),
    _product(
        "swizzle_of_one_row",
        old="    return device::swizzled(index * static_cast<int>(sizeof(Unit)));",
        new="    return index / 8 == 5 ? index * 16 : device::swizzled(index * 16);",
        report=_OFF,
    ),
    _product(
        "tf32_operands_not_rounded",
        old="    device::round_operands(unit.element);\n",
        new="",
        tests=("test_warpgroup.py", "-k", "rounding_to_tf32"),
        report=r"wgmma in \S+:\d+ reads \S+, which was not rounded to TF32",
    ),
    _layer(
        "descriptor_of_another_swizzle",
        old="constexpr uint64_t kSwizzle128 = 1;",
        new="constexpr uint64_t kSwizzle128 = 2;",
        report=r"a's swizzle is 2; only 1, of 128 bytes, is emulated",
    ),
    _layer(
        "descriptor_with_another_stride",
        old="encoded(kSwizzleAtom) << 32",
        new="encoded(kSwizzleAtom / 2) << 32",
        report=_OFF,
    ),
    _layer(
        "descriptor_with_another_leading_offset",
        old="encoded(static_cast<uint32_t>(column_bytes));",
        new="encoded(static_cast<uint32_t>(column_bytes / 2));",
        report=_OFF,
    ),
    _layer(
        "products_of_the_same_depth",
        old="kMajor == Major::kK ? kProductDepth * 2 : kProductDepth * kSwizzledRow;",
        new="kMajor == Major::kK ? kProductDepth : kProductDepth * kSwizzledRow;",
        report=_OFF,
    ),
    _layer(
        "rows_of_the_result",
        old="thread % kWarp / 4 + index / 2 % 2 * 8;",
        new="thread % kWarp / 4 * 2 + index / 2 % 2;",
        report=_OFF,
    ),
    _layer(
        "columns_of_the_result",
        old="return index / 4 * 8 + thread % 4 * 2 + index % 2;",
        new="return index / 4 * 8 + thread % 4 + index % 2 * 4;",
        report=_OFF,
    ),
)
