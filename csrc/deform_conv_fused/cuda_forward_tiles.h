// Which tiles the fused forward takes, and into how many parts it divides K, so that a small batch fills a GPU, too.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace resnet_cuda {

// A block's output pixels and output channels; the parts of K, each by a block of its own.
struct FusedTiles {
  int pixels;
  int columns;
  int splits;
  bool uniform = false;  // all warps sample and multiply; not chosen, since no GPU has run it yet
};

struct FusedTileKind {
  int pixels;
  int columns;
  int step_cycles;  // what the path to shared memory and L1, which bounds the kernel, is busy for in a K step
  int most_splits;
};

// The largest first. Cycles are counted, not measured: 16 for the corners of 32 packs, 4 each for their plan and for
// writing them, and what wgmma reads.
constexpr int kMostSplits = 8;
constexpr FusedTileKind kFusedTileKinds[] = {{128, 256, 1408, 1}, {128, 128, 1152, 1}, {64, 128, 576, kMostSplits}};

// Two blocks of 64 pixels run on a multiprocessor at once; K is not divided further than that.
constexpr int kMostSplitBlocks = 2;

// Divided K: a second launch, and for each part partial sums that are written and read. An estimate.
constexpr int64_t kSplitLaunchCycles = 2600;
constexpr int64_t kSplitCycles = 1400;

// By estimated time: that of the multiprocessor which has the most blocks, since these share its path to shared memory.
// Smaller tiles, and more parts, only where they save an eighth. The order in which an output element's products are
// summed depends on the batch and on the GPU by this function alone.
inline FusedTiles
fused_tiles(int64_t pixels, int64_t groups, int64_t group_out_channels, int64_t steps, int multiprocessors) {
  FusedTiles best{};
  int64_t least = -1;
  for (const FusedTileKind& kind : kFusedTileKinds) {
    const int64_t tiles = ceil_div(pixels, kind.pixels) * groups * ceil_div(group_out_channels, kind.columns);
    for (int splits = 1; splits <= kind.most_splits && splits <= steps; ++splits) {
      const int64_t blocks = tiles * splits;
      if (splits > 1 && blocks > int64_t{kMostSplitBlocks} * multiprocessors) {
        break;
      }
      const int64_t of_parts = splits > 1 ? kSplitLaunchCycles + splits * kSplitCycles : 0;
      const int64_t time =
          ceil_div(blocks, int64_t{multiprocessors}) * ceil_div(steps, int64_t{splits}) * kind.step_cycles + of_parts;
      if (least < 0 || time <= least - least / 8) {
        best = {kind.pixels, kind.columns, splits};
        least = time;
      }
    }
  }
  return best;
}

}  // namespace resnet_cuda
