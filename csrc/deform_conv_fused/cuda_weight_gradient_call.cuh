// A call of the fused gradient for the weight: how its product is divided into tiles, and where their sums lie.
#pragma once

#include "common/fast_division.h"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv_fused/cuda_packed_output_gradient.cuh"
#include "deform_conv_fused/cuda_producer.cuh"
#include "deform_conv_fused/cuda_stream_k.cuh"

namespace resnet_cuda {

// A unit is a slice of 64 input channels of one tap; those of a weight group are [taps][slices]. A tile has the output
// channels of some parts of a group and two units; past the last one the last once more, for nothing.
struct WeightUnit {
  int tap;
  int slice;  // of the group's
};
struct WeightTile {
  int group;
  int first_part;  // of 64 output channels, in the group
  int first_unit;
};
constexpr int kTileUnits = 2;
constexpr int kTileColumns = kTileUnits * kSliceChannels;

// A call for some images, the chunk. Pixels are counted in strip order, image after image, from the chunk's first one.
struct WeightGradientCall {
  DeformConvShape shape;
  Positions positions;
  PackedOutputGradient parts;
  StreamK stream;  // tiles [groups][row tiles][column tiles], steps of 64 pixels
  StripOrder order;
  FastDivision32 image_pixels;  // of the output
  FastDivision32 kernel_width;
  FastDivision32 slices;         // of a weight group's input channels
  FastDivision32 offset_slices;  // of an offset group's
  FastDivision32 column_tiles;   // of a weight group
  FastDivision32 row_tiles;      // of a weight group
  int64_t first_image;
  int units;  // of a weight group

  template <int kRows>
  RESNET_CUDA_HOST_DEVICE WeightTile tile(int number) const {
    const int rows = column_tiles.quotient(number);
    const int group = row_tiles.quotient(rows);
    return {
        group,
        (rows - group * row_tiles.divisor()) * (kRows / PackedOutputGradient::kChannels),
        (number - rows * column_tiles.divisor()) * kTileUnits};
  }
  RESNET_CUDA_HOST_DEVICE WeightUnit unit(int index) const {
    const int tap = slices.quotient(index);
    return {tap, index - tap * slices.divisor()};
  }
};

// How a block's sums of a tile lie in memory: [depth parts][64 rows each][four elements of each thread's][threads], as
// the accumulators have them. Warpgroups of different depth parts have summed different pixels.
template <int kRows, int kDepthParts>
struct TileSums {
  static constexpr int kRowBlocks = kRows / device::kProductRows;
  static constexpr int kQuads = kTileColumns / 2 / 4;  // of a thread, per 64 rows
  static constexpr int kTileQuads = kRowBlocks * kQuads * device::kWarpgroup;
  static constexpr int kElements = kDepthParts * kTileQuads * 4;

  RESNET_CUDA_HOST_DEVICE static int quad(int row_block, int of_thread, int thread) {
    return (row_block * kQuads + of_thread) * device::kWarpgroup + thread;
  }
};

}  // namespace resnet_cuda
