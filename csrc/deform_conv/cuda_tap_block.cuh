// How output pixels and taps are divided among the blocks of SampleColumns and PositionGradients, and how each block
// begins: it plans its taps in shared memory.
#pragma once

#include "deform_conv/cuda_chunk.cuh"

namespace resnet_cuda {

constexpr int kMostTapsPerBlock = 9;
static_assert(kMostTapsPerBlock > 0, "a block takes at least one tap");
// Entries of a block's plan.
constexpr int kMostPlanned = kMostTapsPerBlock * kTilePixels;

struct TapDivision {
  Tiling tiling;        // of the chunk's output pixels
  int taps_per_block;   // at most kMostTapsPerBlock
  int blocks_per_tile;  // and offset group
  int row_threads;      // threads that share a row of the columns: a power of two, at most kMostRowThreads
};

// A block's part: `tap_count` taps from `first_tap` on, of one tile and one offset group.
struct TapBlock {
  int offset_group;
  int tile;
  int first_tap;
  int tap_count;

  RESNET_CUDA_BODY TapBlock(const Chunk& chunk, const TapDivision& division) {
    const int work = static_cast<int>(device::block());
    const int offset_groups = static_cast<int>(chunk.shape.offset_groups);
    const int taps = static_cast<int>(chunk.shape.taps());
    offset_group = work % offset_groups;
    first_tap = work / offset_groups % division.blocks_per_tile * division.taps_per_block;
    tile = work / offset_groups / division.blocks_per_tile;
    tap_count = taps - first_tap < division.taps_per_block ? taps - first_tap : division.taps_per_block;
  }

  // Sets plan[tap * kTilePixels + pixel] to make(pixel, tap of the kernel), all threads together, and waits for them.
  template <typename Entry, typename Make>
  RESNET_CUDA_BODY void make_plan(const device::Shared<Entry>& plan, const Tiling& tiling, const Make& make) const {
    for (int i = device::thread(); i < tap_count * kTilePixels; i += kTileThreads) {
      plan.set(i, make(tiling.pixel(tile, i % kTilePixels), first_tap + i / kTilePixels));
    }
    RESNET_CUDA_SYNC_BLOCK();
  }
};

}  // namespace resnet_cuda
