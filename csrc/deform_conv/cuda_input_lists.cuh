// Which rows of the column matrix each pixel of the input went into, and with what weights: the sampling plan,
// inverted. The gradient of the input is then a sum that each pixel gathers, in an order that is always the same,
// without floating-point atomics.
//
// There is one list per offset group and input pixel. Four kernels build them: count, place, fill, order. Integer
// atomics give every entry a place of its own; which one depends on timing, and ordering by row undoes that.
#pragma once

#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// All arrays lie in one workspace. Lists are numbered [offset group][image of the chunk][input pixel].
template <typename Real>
struct InputLists {
  int lists;
  int* left;          // [lists] entries counted and not yet filled in: all 0 before a chunk and after it
  int* begin;         // [lists] first entry
  int* length;        // [lists]
  int* rows;          // [entries] in the order of arrival
  int* ordered_rows;  // [entries]
  Real* weights;      // [entries]
  Real* ordered_weights;
  int* entries_placed;  // one number, 0 before a chunk
  int* long_lists;      // the lists of more than kLongList entries, in any order
  int* long_count;      // how many, 0 before a chunk
};

// An ordinary list has about 4 * taps entries. Longer ones than this are summed by a whole block.
#if !defined(RESNET_CUDA_LONG_LIST)
#define RESNET_CUDA_LONG_LIST 512
#endif
constexpr int kLongList = RESNET_CUDA_LONG_LIST;

// Calls visit(list, row of the columns, weight) for every pixel of the input that one tap reads. The weight has the
// mask in it. What reads nothing, and what counts nothing, has no entry.
template <typename Real, typename Visit>
RESNET_CUDA_BODY void for_each_corner(const Chunk& chunk, const Positions& positions, int index, const Visit& visit) {
  const int pixels = chunk.pixels();
  const int taps = static_cast<int>(chunk.shape.taps());
  const int width = static_cast<int>(chunk.shape.out_width);
  const int pixel = index % pixels;  // neighbours are neighbours in memory and in the lists that they count
  const int tap = index / pixels % taps;
  const int offset_group = index / pixels / taps;
  const int image = pixel / (chunk.rows * width);
  const int in_image = pixel % (chunk.rows * width);
  const auto [sample, mask] = positions.sample<Real>(
      chunk.shape,
      {chunk.first_image + image, chunk.first_row + in_image / width, in_image % width, offset_group, tap});
  if (sample.kind != TapKind::kInside) {
    return;
  }
  const int first_list = (offset_group * chunk.images + image) * chunk.input_pixels();
  for (int i = 0; i < 4; ++i) {
    const Real weight = sample.corner_weight(i) * mask;
    if (sample.corner[i] >= 0 && weight != Real(0)) {
      visit(first_list + static_cast<int>(sample.corner[i]), pixel * taps + tap, weight);
    }
  }
}

// Index: (offset group, tap, pixel).
template <typename Real>
struct CountCorners {
  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    if (index == 0) {
      *lists.entries_placed = 0;
      *lists.long_count = 0;
    }
    for_each_corner<Real>(chunk, positions, static_cast<int>(index), [&](int list, int, Real) {
      device::atomic_add(lists.left + list, 1);
    });
  }
};

// Gives every list its place among the entries: within a block one behind the other, the blocks as they come.
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
    const int length = list < lists.lists ? lists.left[list] : 0;

    int up_to_here = length;  // within the warp, this list included
#pragma unroll
    for (int delta = 1; delta < device::kWarp; delta *= 2) {
      const int below = RESNET_CUDA_SHUFFLE_UP(up_to_here, delta);
      up_to_here += lane >= delta ? below : 0;
    }
    const device::Shared<int> warp_begin(0, kWarps + 1);
    if (lane == device::kWarp - 1) {
      warp_begin.set(warp, up_to_here);
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (thread == 0) {
      int total = 0;
      for (int i = 0; i < kWarps; ++i) {
        const int of_warp = warp_begin.get(i);
        warp_begin.set(i, total);
        total += of_warp;
      }
      warp_begin.set(kWarps, device::atomic_add(lists.entries_placed, total));
    }
    RESNET_CUDA_SYNC_BLOCK();

    if (list < lists.lists) {
      lists.begin[list] = warp_begin.get(kWarps) + warp_begin.get(warp) + up_to_here - length;
      lists.length[list] = length;
      if (length > kLongList) {
        lists.long_lists[device::atomic_add(lists.long_count, 1)] = static_cast<int>(list);
      }
    }
  }
};

// Index: (offset group, tap, pixel).
template <typename Real>
struct FillLists {
  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    for_each_corner<Real>(chunk, positions, static_cast<int>(index), [&](int list, int row, Real weight) {
      const int place = lists.begin[list] + device::atomic_add(lists.left + list, -1) - 1;
      lists.rows[place] = row;
      lists.weights[place] = weight;
    });
  }
};

// Index: (list, one of kLanes threads). A row is in a list at most once, so the number of smaller ones is its place.
template <typename Real>
struct OrderLists {
  static constexpr int kLanes = 8;

  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const auto list = static_cast<int>(index / kLanes);
    const int begin = lists.begin[list];
    const int end = begin + lists.length[list];
    for (int entry = begin + static_cast<int>(index % kLanes); entry < end; entry += kLanes) {
      const int row = lists.rows[entry];
      int place = begin;
      for (int other = begin; other < end; ++other) {
        place += lists.rows[other] < row ? 1 : 0;
      }
      lists.ordered_rows[place] = row;
      lists.ordered_weights[place] = lists.weights[entry];
    }
  }
};

}  // namespace resnet_cuda
