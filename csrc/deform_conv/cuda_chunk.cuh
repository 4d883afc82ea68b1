// A chunk, the part of a call that the CUDA kernels process at once, and how its pixels are divided among blocks.
#pragma once

#include "common/device.cuh"
#include "common/fast_division.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// All rows of some images, or some rows of one image. A kernel's pointers to images begin at the chunk's first image.
// Pixels of a chunk are counted in the order (image, row, column); their number fits 32 bits.
struct Chunk {
  DeformConvShape shape;
  int64_t first_image;
  int images;
  int first_row;  // of the output
  int rows;
  // C/groups and C/offset_groups, precomputed: a 64-bit division is slow on a GPU.
  int group_channels;
  int offset_group_channels;

  RESNET_CUDA_HOST_DEVICE int pixels() const {
    return images * rows * static_cast<int>(shape.out_width);
  }
  // The columns' row of tap 0 of a pixel.
  RESNET_CUDA_HOST_DEVICE int row_of(int image, int row, int column) const {
    return ((image * rows + row) * static_cast<int>(shape.out_width) + column) * static_cast<int>(shape.taps());
  }
  RESNET_CUDA_HOST_DEVICE int input_pixels() const {
    return static_cast<int>(shape.height * shape.width);
  }
};

// A tile, 4 x 8 pixels of one image, is the work of one block: neighbours read and write the same cache lines. (The CPU
// kernels' tiles, of up to 96 pixels, are in deform_conv_cpu.h.)
constexpr int kTileRows = 4;
constexpr int kTileColumns = 8;
constexpr int kTilePixels = kTileRows * kTileColumns;
constexpr int kTileThreads = 256;  // of a block

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
  // Pixel `index` < kTilePixels of a tile, row by row; not `inside` where the tile reaches over the image's edge.
  RESNET_CUDA_HOST_DEVICE TilePixel pixel(int tile, int index) const {
    const int tile_row = tile / across();
    TilePixel pixel;
    pixel.image = tile_row / down();
    pixel.row = tile_row % down() * kTileRows + index / kTileColumns;
    pixel.column = tile % across() * kTileColumns + index % kTileColumns;
    pixel.inside = pixel.row < height && pixel.column < width;
    return pixel;
  }
  // In the order (image, row, column).
  RESNET_CUDA_HOST_DEVICE int index(const TilePixel& pixel) const {
    return (pixel.image * height + pixel.row) * width + pixel.column;
  }
};

// A thread's part of its block's tile: one pixel, of whose channels each of `row_threads` neighbouring threads takes
// some, and every tap_step-th tap from first_tap on.
struct TileThread {
  int pixel;  // < kTilePixels
  int first_tap;
  int tap_step;
  int in_row;  // index among the threads of the row

  RESNET_CUDA_HOST_DEVICE TileThread(int thread, int row_threads)
      : pixel(thread / row_threads % kTilePixels),
        first_tap(thread / row_threads / kTilePixels),
        tap_step(kTileThreads / row_threads / kTilePixels),
        in_row(thread % row_threads) {
  }
};

// The columns (im2col matrix) of a chunk are [groups][pixels][taps][C/groups]; a row is one tap of one pixel.
RESNET_CUDA_HOST_DEVICE int64_t column_index(const Chunk& chunk, int row, int channel) {
  const int group = channel / chunk.group_channels;
  const int64_t group_rows = static_cast<int64_t>(group) * chunk.pixels() * static_cast<int>(chunk.shape.taps());
  return (group_rows + row) * chunk.group_channels + channel - group * chunk.group_channels;
}

RESNET_CUDA_HOST_DEVICE int64_t
column_index(const Chunk& chunk, const FastDivision32& group_channels, int row, int channel) {
  const int group = group_channels.quotient(channel);
  // Rows of all groups before and of this one.
  const int64_t rows = static_cast<int64_t>(group) * (chunk.pixels() * static_cast<int>(chunk.shape.taps())) + row;
  return rows * chunk.group_channels + (channel - group * chunk.group_channels);
}

}  // namespace resnet_cuda
