// What one pass of the CUDA kernels works on, and how its pixels are divided among blocks.
#pragma once

#include "common/device.cuh"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// All rows of some images, or some rows of one image. Pointers of a kernel that are relative to a chunk begin at its
// first image. Pixels of a chunk are counted in the order (image, row, column); their number fits 32 bits.
struct Chunk {
  DeformConvShape shape;
  int64_t first_image;
  int images;
  int first_row;  // of the output
  int rows;
  // From `shape`, so that no kernel divides 64-bit numbers for them.
  int group_channels;
  int offset_group_channels;

  RESNET_CUDA_HOST_DEVICE int pixels() const {
    return images * rows * static_cast<int>(shape.out_width);
  }
  RESNET_CUDA_HOST_DEVICE int input_pixels() const {
    return static_cast<int>(shape.height * shape.width);
  }
};

// Planes of height x width, one per image, cut into tiles of 4 x 8 pixels, so that neighbours, which read and write the
// same lines of the input, are in one block.
constexpr int kTileRows = 4;
constexpr int kTileColumns = 8;
constexpr int kTilePixels = kTileRows * kTileColumns;

struct TilePixel {
  int image;
  int row;
  int column;
  bool inside;
};

struct Tiling {
  int images;
  int height;
  int width;

  RESNET_CUDA_HOST_DEVICE int down() const {
    return (height + kTileRows - 1) / kTileRows;
  }
  RESNET_CUDA_HOST_DEVICE int across() const {
    return (width + kTileColumns - 1) / kTileColumns;
  }
  RESNET_CUDA_HOST_DEVICE int64_t tiles() const {
    return static_cast<int64_t>(images) * down() * across();
  }
  // Pixel `index` < kTilePixels of a tile, neighbours in a row first.
  RESNET_CUDA_HOST_DEVICE TilePixel pixel(int tile, int index) const {
    const int tile_row = tile / across();
    TilePixel pixel;
    pixel.image = tile_row / down();
    pixel.row = tile_row % down() * kTileRows + index / kTileColumns;
    pixel.column = tile % across() * kTileColumns + index % kTileColumns;
    pixel.inside = pixel.row < height && pixel.column < width;
    return pixel;
  }
};

// How the threads of a block share its tile: `lanes` neighbours have one pixel and divide its channels, and where there
// are more threads than that, they divide the taps. Pixel and first tap of a thread are then the same for all it does.
struct TileThread {
  int pixel;  // < kTilePixels
  int first_tap;
  int tap_step;
  int lane;

  RESNET_CUDA_HOST_DEVICE TileThread(int thread, int threads, int lanes)
      : pixel(thread / lanes % kTilePixels),
        first_tap(thread / lanes / kTilePixels),
        tap_step(threads / lanes / kTilePixels),
        lane(thread % lanes) {
  }
};

// The column matrix of a chunk is [groups][pixels][taps][C/groups]; a row is one tap of one pixel.
RESNET_CUDA_HOST_DEVICE int64_t column_index(const Chunk& chunk, int row, int channel) {
  const int group = channel / chunk.group_channels;
  const int64_t group_rows = static_cast<int64_t>(group) * chunk.pixels() * static_cast<int>(chunk.shape.taps());
  return (group_rows + row) * chunk.group_channels + channel - group * chunk.group_channels;
}

// Threads that share a row of channels: as many packs as fit, at most 8 (128 bytes of 16-byte packs), so that 256
// threads are enough for a tile.
constexpr int kMostLanes = 8;

}  // namespace resnet_cuda
