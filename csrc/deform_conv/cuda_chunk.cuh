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

// The columns (im2col matrix) of a chunk are [groups][pixels][taps][C/groups]; a row is one tap of one pixel.
RESNET_CUDA_HOST_DEVICE int64_t
column_index(const Chunk& chunk, const FastDivision32& group_channels, int row, int channel) {
  const int group = group_channels.quotient(channel);
  // Rows of all groups before and of this one.
  const int64_t rows = static_cast<int64_t>(group) * (chunk.pixels() * static_cast<int>(chunk.shape.taps())) + row;
  return rows * chunk.group_channels + (channel - group * chunk.group_channels);
}

}  // namespace resnet_cuda
