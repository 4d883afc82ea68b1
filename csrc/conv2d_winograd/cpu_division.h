// How many threads share the tiles, and how many the output channels, of Winograd's convolution on the CPU.
#pragma once

#include "conv2d_winograd/conv2d_winograd_cpu.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

// Tiles divided into `tile_parts`, panels into `panel_parts`: at most one part per thread, since two parts of one
// thread take twice as long as all others.
struct Division {
  int64_t tile_parts, panel_parts;
};

// The time of the largest part, in units of one fused multiply-add of 16 lanes per channel and element of a patch: the
// products, the transform of the input (repeated by every part of the same tiles), and reading the weights from a
// shared cache once per strip.
inline int64_t cost_of(const WinogradShape& shape, const Division& division, int64_t strip_tiles) {
  const int64_t tiles = ceil_div(ceil_div(shape.tiles(), kTileStep), division.tile_parts) * kTileStep;
  const int64_t outputs = ceil_div(shape.panels(), division.panel_parts) * kWinogradPanel;
  return tiles * outputs / 16 + tiles / 2 + ceil_div(tiles, strip_tiles) * outputs / 2;
}

// The cheapest division. With several panel parts some threads may have none.
inline Division divide(const WinogradShape& shape, int64_t threads, int64_t strip_tiles) {
  Division best{threads, 1};
  for (int64_t panel_parts = 2; panel_parts <= smaller(threads, shape.panels()); ++panel_parts) {
    const Division division{threads / panel_parts, panel_parts};
    if (cost_of(shape, division, strip_tiles) < cost_of(shape, best, strip_tiles)) {
      best = division;
    }
  }
  return best;
}

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
