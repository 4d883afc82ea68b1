// The CSR transpose of the sampling matrix: for every input pixel the rows of the columns (im2col) that read it, with
// their weights. col2im is then a gather: each pixel sums its list, always in the same order and without floating-point
// atomics.
//
// One list per offset group and input pixel, built by a counting sort in four kernels: count, exclusive prefix sum
// (scan), fill, sort each list by row. Count and fill use integer atomics, so the order of a list that was filled
// depends on timing; sorting makes it deterministic.
#pragma once

#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// A non-zero of the sampling matrix: a row of the columns and the weight with which it reads the list's pixel.
template <typename Real>
struct alignas(2 * sizeof(Real)) ListEntry {
  Real weight;
  int row;
};

// Lists are numbered [offset group][image of the chunk][input pixel].
template <typename Real>
struct InputLists {
  int lists;
  // [lists] Counter: count raises it to the list's length, fill lowers it to 0 again, so it never needs clearing.
  int* remaining;
  int* begin;                 // [lists] first entry
  int* length;                // [lists]
  ListEntry<Real>* unsorted;  // [entries] as filled
  ListEntry<Real>* sorted;    // [entries] by row
  int* entry_count;           // [1] entries given to lists so far
  int* long_lists;            // the lists of more than kLongList entries, in any order
  int* long_count;            // [1]
};

// An ordinary list has about 4 * taps entries. Lists longer than kLongList are summed by a whole block.
#if !defined(RESNET_CUDA_LONG_LIST)
#define RESNET_CUDA_LONG_LIST 512
#endif
constexpr int kLongList = RESNET_CUDA_LONG_LIST;
static_assert(kLongList > 0, "ListStorage has room for one long list per kLongList entries");

// One tap of one pixel of the chunk.
struct ChunkTap {
  int offset_group;
  int pixel;
  int tap;
};

// Calls visit(list, row of the columns, weight) for every non-zero of one tap in the sampling matrix. The weight is the
// bilinear weight times the mask.
template <typename Real, typename Visit>
RESNET_CUDA_BODY void
for_each_nonzero(const Chunk& chunk, const Positions& positions, const ChunkTap& tap, const Visit& visit) {
  const int taps = static_cast<int>(chunk.shape.taps());
  const int width = static_cast<int>(chunk.shape.out_width);
  const int image = tap.pixel / (chunk.rows * width);
  const int in_image = tap.pixel % (chunk.rows * width);
  const auto [sample, mask] = positions.sample<Real>(
      chunk.shape,
      {chunk.first_image + image,
       chunk.first_row + in_image / width,
       in_image % width,
       tap.offset_group,
       tap.tap / static_cast<int>(chunk.shape.kernel_w),
       tap.tap % static_cast<int>(chunk.shape.kernel_w)});
  if (sample.kind != TapKind::kInside) {
    return;
  }
  const int first_list = (tap.offset_group * chunk.images + image) * chunk.input_pixels();
  for (int i = 0; i < 4; ++i) {
    const Real weight = sample.corner_weight(i) * mask;
    if (sample.corner[i] >= 0 && weight != Real(0)) {
      visit(first_list + static_cast<int>(sample.corner[i]), tap.pixel * taps + tap.tap, weight);
    }
  }
}

// `index` counts (offset group, tap, pixel): neighbouring threads read neighbouring offsets and, mostly, pixels.
RESNET_CUDA_HOST_DEVICE ChunkTap tap_at(const Chunk& chunk, int index) {
  const int pixels = chunk.pixels();
  const int taps = static_cast<int>(chunk.shape.taps());
  return {index / pixels / taps, index % pixels, index / pixels % taps};
}

// Count. Index: (offset group, tap, pixel).
template <typename Real>
struct CountCorners {
  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    if (index == 0) {
      *lists.entry_count = 0;
      *lists.long_count = 0;
    }
    for_each_nonzero<Real>(chunk, positions, tap_at(chunk, static_cast<int>(index)), [&](int list, int, Real) {
      device::atomic_add(lists.remaining + list, 1);
    });
  }
};

// The sum of `value` over this lane and all lower lanes of the warp, all of which must call it.
RESNET_CUDA_BODY int warp_inclusive_sum(int value) {
  const int lane = device::thread() % device::kWarp;
  int inclusive_sum = value;
#pragma unroll
  for (int delta = 1; delta < device::kWarp; delta *= 2) {
    const int shifted = RESNET_CUDA_SHUFFLE_UP(inclusive_sum, delta);
    inclusive_sum += lane >= delta ? shifted : 0;
  }
  return inclusive_sum;
}

// Scan: where every list begins. Within a block the lists follow one another; blocks take their ranges of entries by an
// atomic, in any order.
template <typename Real>
struct PlaceLists {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / device::kWarp;
  static constexpr int kSharedBytes = (kWarps + 1) * static_cast<int>(sizeof(int));

  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    const int lane = thread % device::kWarp;
    const int warp = thread / device::kWarp;
    const int64_t list = device::block() * kThreads + thread;
    const int length = list < lists.lists ? lists.remaining[list] : 0;

    const int inclusive_sum = warp_inclusive_sum(length);
    // Each warp's total, then the sum of all before it; behind them the first entry of the block.
    const device::Shared<int> warp_begin(0, kWarps + 1);
    if (lane == device::kWarp - 1) {
      warp_begin.set(warp, inclusive_sum);
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (thread == 0) {
      int total = 0;
      for (int i = 0; i < kWarps; ++i) {
        const int warp_total = warp_begin.get(i);
        warp_begin.set(i, total);
        total += warp_total;
      }
      warp_begin.set(kWarps, device::atomic_add(lists.entry_count, total));
    }
    RESNET_CUDA_SYNC_BLOCK();

    if (list < lists.lists) {
      lists.begin[list] = warp_begin.get(kWarps) + warp_begin.get(warp) + inclusive_sum - length;
      lists.length[list] = length;
      if (length > kLongList) {
        lists.long_lists[device::atomic_add(lists.long_count, 1)] = static_cast<int>(list);
      }
    }
  }
};

// Fill, each list from its end. Index: (offset group, tap, pixel).
template <typename Real>
struct FillLists {
  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    for_each_nonzero<Real>(
        chunk, positions, tap_at(chunk, static_cast<int>(index)), [&](int list, int row, Real weight) {
          const int place = lists.begin[list] + device::atomic_add(lists.remaining + list, -1) - 1;
          lists.unsorted[place] = {weight, row};
        });
  }
};

// Sort every list by row. A row is in a list at most once.
//
// Ordinary lists: an entry's place is the number of entries with smaller rows (rank sort, quadratic in the length);
// kListThreads threads share a list. Long lists: a block goes through all taps of the list's image in the order of rows
// and keeps the taps that read the list's pixel (stream compaction); the time does not depend on the length.
template <typename Real>
struct OrderLists {
  static constexpr int kThreads = 256;
  static constexpr int kListThreads = 8;
  static_assert(kThreads % kListThreads == 0, "a block has kLists groups of kListThreads threads");
  static constexpr int kLists = kThreads / kListThreads;  // of a block, besides long ones
  static constexpr int kWarps = kThreads / device::kWarp;
  static constexpr int kSharedBytes = kWarps * static_cast<int>(sizeof(int));

  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()() const {
    const int64_t list = device::block() * kLists + device::thread() / kListThreads;
    if (list < lists.lists && lists.length[list] <= kLongList) {
      rank_sort(static_cast<int>(list), device::thread() % kListThreads);
    }
    const int64_t long_count = *lists.long_count;
    for (int64_t i = device::block(); i < long_count; i += device::blocks()) {
      collect_in_order(lists.long_lists[i]);
    }
  }

 private:
  RESNET_CUDA_BODY void rank_sort(int list, int first) const {
    const int begin = lists.begin[list];
    const int end = begin + lists.length[list];
    for (int entry = begin + first; entry < end; entry += kListThreads) {
      const ListEntry<Real> mine = lists.unsorted[entry];
      int place = begin;
      for (int other = begin; other < end; ++other) {
        place += lists.unsorted[other].row < mine.row ? 1 : 0;
      }
      lists.sorted[place] = mine;
    }
  }

  // All threads of the block.
  RESNET_CUDA_BODY void collect_in_order(int list) const {
    const int taps = static_cast<int>(chunk.shape.taps());
    const int image_rows = chunk.rows * static_cast<int>(chunk.shape.out_width) * taps;
    const int list_image = list / chunk.input_pixels();  // (offset group, image)
    const int offset_group = list_image / chunk.images;
    const int first_row = list_image % chunk.images * image_rows;
    const int lane = device::thread() % device::kWarp;
    const int warp = device::thread() / device::kWarp;
    const device::Shared<int> warp_totals(0, kWarps);
    int place = lists.begin[list];
    const int end = place + lists.length[list];
    for (int first = 0; first < image_rows && place < end; first += kThreads) {
      const int row = first_row + first + device::thread();
      int found = 0;
      Real found_weight = Real(0);
      if (first + device::thread() < image_rows) {
        for_each_nonzero<Real>(
            chunk, positions, {offset_group, row / taps, row % taps}, [&](int other, int, Real weight) {
              if (other == list) {
                found = 1;
                found_weight = weight;
              }
            });
      }
      const int inclusive_sum = warp_inclusive_sum(found);
      if (lane == device::kWarp - 1) {
        warp_totals.set(warp, inclusive_sum);
      }
      RESNET_CUDA_SYNC_BLOCK();
      int mine = place + inclusive_sum - 1;
      for (int i = 0; i < kWarps; ++i) {
        const int warp_total = warp_totals.get(i);
        mine += i < warp ? warp_total : 0;
        place += warp_total;
      }
      if (found != 0) {
        lists.sorted[mine] = {found_weight, row};
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }
};

}  // namespace resnet_cuda
