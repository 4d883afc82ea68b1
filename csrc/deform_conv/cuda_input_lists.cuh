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

// A row of the columns and what it counts for in the list's pixel: one load, one store.
template <typename Real>
struct alignas(2 * sizeof(Real)) ListEntry {
  Real weight;
  int row;
};

// All arrays lie in one workspace. Lists are numbered [offset group][image of the chunk][input pixel].
template <typename Real>
struct InputLists {
  int lists;
  int* left;                 // [lists] entries counted and not yet filled in: all 0 before a chunk and after it
  int* begin;                // [lists] first entry
  int* length;               // [lists]
  ListEntry<Real>* arrived;  // [entries] in the order of arrival
  ListEntry<Real>* ordered;  // [entries]
  int* entries_placed;       // one number, 0 before a chunk
  int* long_lists;           // the lists of more than kLongList entries, in any order
  int* long_count;           // how many, 0 before a chunk
};

// An ordinary list has about 4 * taps entries. Longer ones than this are summed by a whole block.
#if !defined(RESNET_CUDA_LONG_LIST)
#define RESNET_CUDA_LONG_LIST 512
#endif
constexpr int kLongList = RESNET_CUDA_LONG_LIST;

// One tap of one pixel of the chunk.
struct ChunkTap {
  int offset_group;
  int pixel;
  int tap;
};

// Calls visit(list, row of the columns, weight) for every pixel of the input that one tap reads. The weight has the
// mask in it. What reads nothing, and what counts nothing, has no entry.
template <typename Real, typename Visit>
RESNET_CUDA_BODY void
for_each_corner(const Chunk& chunk, const Positions& positions, const ChunkTap& place, const Visit& visit) {
  const int taps = static_cast<int>(chunk.shape.taps());
  const int width = static_cast<int>(chunk.shape.out_width);
  const int image = place.pixel / (chunk.rows * width);
  const int in_image = place.pixel % (chunk.rows * width);
  const auto [sample, mask] = positions.sample<Real>(
      chunk.shape,
      {chunk.first_image + image, chunk.first_row + in_image / width, in_image % width, place.offset_group, place.tap});
  if (sample.kind != TapKind::kInside) {
    return;
  }
  const int first_list = (place.offset_group * chunk.images + image) * chunk.input_pixels();
  for (int i = 0; i < 4; ++i) {
    const Real weight = sample.corner_weight(i) * mask;
    if (sample.corner[i] >= 0 && weight != Real(0)) {
      visit(first_list + static_cast<int>(sample.corner[i]), place.pixel * taps + place.tap, weight);
    }
  }
}

// `index` counts (offset group, tap, pixel): neighbours are neighbours in memory and in the lists that they count.
RESNET_CUDA_HOST_DEVICE ChunkTap tap_at(const Chunk& chunk, int index) {
  const int pixels = chunk.pixels();
  const int taps = static_cast<int>(chunk.shape.taps());
  return {index / pixels / taps, index % pixels, index / pixels % taps};
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
    for_each_corner<Real>(chunk, positions, tap_at(chunk, static_cast<int>(index)), [&](int list, int, Real) {
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
    for_each_corner<Real>(
        chunk, positions, tap_at(chunk, static_cast<int>(index)), [&](int list, int row, Real weight) {
          const int place = lists.begin[list] + device::atomic_add(lists.left + list, -1) - 1;
          lists.arrived[place] = {weight, row};
        });
  }
};

// Brings every list into the order of its rows.
//
// A row is in a list at most once, so the number of smaller ones is its place: kLanes threads count that for a list,
// which takes the square of its length. For a long list a block asks every tap of the list's image instead, in the
// order of rows, whether it reads the list's pixel; that takes the same time however long the list is.
template <typename Real>
struct OrderLists {
  static constexpr int kThreads = 256;
  static constexpr int kLanes = 8;
  static constexpr int kLists = kThreads / kLanes;  // of a block, besides long ones
  static constexpr int kWarps = kThreads / device::kWarp;
  static constexpr int kSharedBytes = kWarps * static_cast<int>(sizeof(int));

  Chunk chunk;
  Positions positions;
  InputLists<Real> lists;

  RESNET_CUDA_BODY void operator()() const {
    const int64_t list = device::block() * kLists + device::thread() / kLanes;
    if (list < lists.lists && lists.length[list] <= kLongList) {
      order(static_cast<int>(list), device::thread() % kLanes);
    }
    const int64_t long_count = *lists.long_count;
    for (int64_t i = device::block(); i < long_count; i += device::blocks()) {
      order_long(lists.long_lists[i]);
    }
  }

 private:
  RESNET_CUDA_BODY void order(int list, int lane) const {
    const int begin = lists.begin[list];
    const int end = begin + lists.length[list];
    for (int entry = begin + lane; entry < end; entry += kLanes) {
      const ListEntry<Real> mine = lists.arrived[entry];
      int place = begin;
      for (int other = begin; other < end; ++other) {
        place += lists.arrived[other].row < mine.row ? 1 : 0;
      }
      lists.ordered[place] = mine;
    }
  }

  // All threads of the block.
  RESNET_CUDA_BODY void order_long(int list) const {
    const int taps = static_cast<int>(chunk.shape.taps());
    const int image_rows = chunk.rows * static_cast<int>(chunk.shape.out_width) * taps;
    const int list_image = list / chunk.input_pixels();  // (offset group, image)
    const int offset_group = list_image / chunk.images;
    const int first_row = list_image % chunk.images * image_rows;
    const int lane = device::thread() % device::kWarp;
    const int warp = device::thread() / device::kWarp;
    const device::Shared<int> found_by_warp(0, kWarps);
    int place = lists.begin[list];
    const int end = place + lists.length[list];
    for (int first = 0; first < image_rows && place < end; first += kThreads) {
      const int row = first_row + first + device::thread();
      int found = 0;
      Real found_weight = Real(0);
      if (first + device::thread() < image_rows) {
        for_each_corner<Real>(
            chunk, positions, {offset_group, row / taps, row % taps}, [&](int other, int, Real weight) {
              if (other == list) {
                found = 1;
                found_weight = weight;
              }
            });
      }
      int up_to_here = found;  // within the warp, this row included
#pragma unroll
      for (int delta = 1; delta < device::kWarp; delta *= 2) {
        const int below = RESNET_CUDA_SHUFFLE_UP(up_to_here, delta);
        up_to_here += lane >= delta ? below : 0;
      }
      if (lane == device::kWarp - 1) {
        found_by_warp.set(warp, up_to_here);
      }
      RESNET_CUDA_SYNC_BLOCK();
      int mine = place + up_to_here - 1;
      for (int i = 0; i < kWarps; ++i) {
        const int of_warp = found_by_warp.get(i);
        mine += i < warp ? of_warp : 0;
        place += of_warp;
      }
      if (found != 0) {
        lists.ordered[mine] = {found_weight, row};
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }
};

}  // namespace resnet_cuda
