// Where tiles lie, and their two transforms, vectorised over channels, for one element type and one instruction set.
#pragma once

#include "common/cache_line.h"
#include "common/vec.h"
#include "common/vec_partial.h"
#include "conv2d_winograd/conv2d_winograd_cpu.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using conv2d_winograd_cpu::Task;

// A tile by its image and its first output pixel; tiles are counted row by row, image by image.
struct TileCursor {
  int64_t image, row, column;

  RESNET_CUDA_INLINE_MEMBER TileCursor(const WinogradShape& shape, int64_t tile) {
    const int64_t columns = shape.tile_columns();
    const int64_t rows = shape.tile_rows();
    image = tile / (rows * columns);
    row = tile / columns % rows * kTileSide;
    column = tile % columns * kTileSide;
  }
  RESNET_CUDA_INLINE_MEMBER void advance(const WinogradShape& shape) {
    column += kTileSide;
    if (column >= shape.out_width) {
      column = 0;
      row += kTileSide;
    }
    if (row >= shape.out_height) {
      row = 0;
      ++image;
    }
  }
};

// The 36 pixels of a tile's patch; those outside the image are zeros.
template <typename T>
struct Patch {
  const T* pixel[kPatchSide][kPatchSide];

  RESNET_CUDA_INLINE_MEMBER Patch(const Task& task, const TileCursor& tile) {
    const WinogradShape& shape = task.shape;
    const T* image = static_cast<const T*>(task.input) + tile.image * shape.height * shape.width * shape.channels;
    for (int i = 0; i < kPatchSide; ++i) {
      const int64_t y = tile.row - shape.pad_h + i;
      for (int j = 0; j < kPatchSide; ++j) {
        const int64_t x = tile.column - shape.pad_w + j;
        const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
        pixel[i][j] = inside ? image + (y * shape.width + x) * shape.channels : static_cast<const T*>(task.zeros);
      }
    }
  }

  // Brings a cache line of each pixel into the first-level cache. The first two columns of pixels are the last two of
  // the patch to the left, which was read before.
  RESNET_CUDA_INLINE_MEMBER void prefetch(int64_t channel) const {
#pragma GCC unroll 6
    for (int i = 0; i < kPatchSide; ++i) {
#pragma GCC unroll 6
      for (int j = kPatchSide - kTileSide; j < kPatchSide; ++j) {
        __builtin_prefetch(pixel[i][j] + channel);
      }
    }
  }
};

// Moves on to the next six of the 36 matrices. The compiler must not know from where: it would compute all addresses in
// advance and spill them, and loading them takes longer than the additions.
template <typename Real>
RESNET_CUDA_INLINE void next_row_of_matrices(Real*& first, int64_t matrix) {
  first += kPatchSide * matrix;
  asm("" : "+r"(first));
}

// B^T d B of one vector of channels, from `channel` on, into 36 matrices that are `matrix` elements apart.
template <typename T, typename Extent>
RESNET_CUDA_INLINE void
transform_patch(const Patch<T>& patch, int64_t channel, Extent extent, float* target, int64_t matrix) {
  Vec<float> half[kPatchSide][kPatchSide];
#pragma GCC unroll 6
  for (int j = 0; j < kPatchSide; ++j) {
    Vec<float> pixels[kPatchSide], values[kPatchSide];
#pragma GCC unroll 6
    for (int i = 0; i < kPatchSide; ++i) {
      pixels[i] = load(patch.pixel[i][j] + channel, extent);
    }
    transform_input(pixels, values);
#pragma GCC unroll 6
    for (int i = 0; i < kPatchSide; ++i) {
      half[i][j] = values[i];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kPatchSide; ++i) {
    Vec<float> values[kPatchSide];
    transform_input(half[i], values);
#pragma GCC unroll 6
    for (int j = 0; j < kPatchSide; ++j) {
      store(values[j], target + j * matrix);
    }
    next_row_of_matrices(target, matrix);
  }
}

// Tiles [begin, end) into `patches`, [36][tiles][row_stride].
template <typename T>
RESNET_CUDA_INLINE void transform_patches(const Task& task, int64_t begin, int64_t end, float* patches) {
  const int64_t channels = task.shape.channels;
  const int64_t row = conv2d_winograd_cpu::row_stride(channels);
  const int64_t matrix = conv2d_winograd_cpu::patches_matrix(task);
  TileCursor cursor(task.shape, begin);
  Patch<T> patch(task, cursor);
  for (int64_t tile = begin; tile < end; ++tile, patches += row) {
    cursor.advance(task.shape);
    const Patch<T> next = tile + 1 < end ? Patch<T>(task, cursor) : patch;
    int64_t channel = 0;
    for (; channel + kLanes<float> <= channels; channel += kLanes<float>) {
      if (channel * static_cast<int64_t>(sizeof(T)) % kCacheLine == 0) {  // hardware does not follow so many pixels
        next.prefetch(channel);
      }
      transform_patch(patch, channel, FullVector{}, patches + channel, matrix);
    }
    if (channel < channels) {
      transform_patch(patch, channel, PartialVector{channels - channel}, patches + channel, matrix);
    }
    patch = next;
  }
}

// What of a tile lies inside the result, and where its pixels are in memory, in elements.
struct TileExtent {
  int64_t rows, columns;
  int64_t row_step, pixel_step;
};

// A^T m A of one vector of output channels, plus bias and residual, clamped where asked, into the tile's pixels.
template <typename T, typename Extent>
RESNET_CUDA_INLINE void write_tile_vector(
    const float* products,
    int64_t matrix,
    const TileExtent& tile,
    Vec<float> bias,
    const T* residual,
    bool relu,
    Extent extent,
    T* target) {
  Vec<float> half[kTileSide][kPatchSide];
#pragma GCC unroll 6
  for (int i = 0; i < kPatchSide; ++i) {
    Vec<float> row[kPatchSide], pixels[kTileSide];
#pragma GCC unroll 6
    for (int j = 0; j < kPatchSide; ++j) {
      row[j] = load(products + j * matrix);
    }
    next_row_of_matrices(products, matrix);
    transform_output(row, pixels);
#pragma GCC unroll 4
    for (int j = 0; j < kTileSide; ++j) {
      half[j][i] = pixels[j];
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kTileSide; ++j) {
    if (j >= tile.columns) {
      return;
    }
    Vec<float> pixels[kTileSide];
    transform_output(half[j], pixels);
#pragma GCC unroll 4
    for (int i = 0; i < kTileSide; ++i) {
      if (i < tile.rows) {
        const int64_t position = i * tile.row_step + j * tile.pixel_step;
        Vec<float> value = pixels[i] + bias;
        if (residual != nullptr) {
          value += load(residual + position, extent);
        }
        store(relu ? positive_part(value) : value, target + position, extent);
      }
    }
  }
}

// Output channels [output_begin, output_end) of tiles [begin, end), from `products`, [36][tiles][kProductRow].
template <typename T>
RESNET_CUDA_INLINE void write_tiles(
    const Task& task,
    int64_t begin,
    int64_t end,
    int64_t output_begin,
    int64_t output_end,
    const float* products) {
  const WinogradShape& shape = task.shape;
  const int64_t matrix = conv2d_winograd_cpu::products_matrix(task);
  TileCursor cursor(shape, begin);
  for (int64_t tile = begin; tile < end; ++tile, cursor.advance(shape), products += conv2d_winograd_cpu::kProductRow) {
    const TileExtent extent{
        shape.out_height - cursor.row,
        shape.out_width - cursor.column,
        shape.out_width * shape.out_channels,
        shape.out_channels};
    const int64_t first =
        ((cursor.image * shape.out_height + cursor.row) * shape.out_width + cursor.column) * shape.out_channels;
    const auto write = [&](int64_t output, auto vector) __attribute__((always_inline)) {
      write_tile_vector<T>(
          products + (output - output_begin),
          matrix,
          extent,
          task.bias == nullptr ? Vec<float>{} : load(task.bias + output, vector),
          task.residual == nullptr ? nullptr : static_cast<const T*>(task.residual) + first + output,
          task.relu,
          vector,
          static_cast<T*>(task.output) + first + output);
    };
    int64_t output = output_begin;
    for (; output + kLanes<float> <= output_end; output += kLanes<float>) {
      write(output, FullVector{});
    }
    if (output < output_end) {
      write(output, PartialVector{output_end - output});
    }
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
