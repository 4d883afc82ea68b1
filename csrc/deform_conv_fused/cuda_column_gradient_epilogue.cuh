// The epilogue of the fused columns' gradient: what becomes of a tile's sums, and of a tap's dot products.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv_fused/cuda_column_gradient.cuh"

namespace resnet_cuda {

// Adds a tile's channels to the dot products, and stores them where the columns' gradient is asked for.
template <typename T, int kColumns, int kMostSlices>
RESNET_CUDA_BODY void FusedColumnGradient<T, kColumns, kMostSlices>::use(
    int thread,
    int tap,
    int tile,
    const int (&corner)[kThreadRows][4],
    const device::Sums<kColumns>& sums,
    Dots (&dots)[kThreadRows]) const {
  const int first = call.tiles.first_channel(tile) + thread % 4 * N;
  const int channels = call.tiles.channels(tile);
  const int group = call.tiles.group_tiles.quotient(tile);
  const T* source = input + first;
  const int64_t group_rows =
      static_cast<int64_t>(group) * (call.chunk.pixels() * static_cast<int>(call.chunk.shape.taps()));
  T* target[kThreadRows];
  bool stored[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    const int row = rows().get(thread / device::kWarpgroup * device::kProductRows + device::result_row(thread, 2 * i));
    target[i] =
        columns + (group_rows + row + tap) * call.chunk.group_channels + (first - group * call.chunk.group_channels);
    stored[i] = row >= 0 && stores;
  }
  // Columns past the tile's channels have sums of zeros: nothing is read and nothing stored. The number of channels
  // is a multiple of 64.
  constexpr int kAtOnce = 64;
#pragma unroll
  for (int first_column = 0; first_column < kColumns; first_column += kAtOnce) {
    if (first_column < channels) {
      // Per 32 columns and row of the thread the four corners of 8 channels, all asked for before the first is used.
      constexpr int kSteps = kAtOnce / kPermutedColumns * kThreadRows;
      Pack<T, N> value[kSteps][4];
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int column = first_column + step / kThreadRows * kPermutedColumns;
        load_corners(source + column, corner[step % kThreadRows], value[step]);
      }
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int column = first_column + step / kThreadRows * kPermutedColumns;
        const int i = step % kThreadRows;
        float gradient[N];
#pragma unroll
        for (int j = 0; j < N; ++j) {
          gradient[j] = sums.get((column / 8 + j / 2) * 4 + 2 * i + j % 2);
        }
        for_each_corner_value<float>(value[step], [&](int number, const float(&values)[N]) {
#pragma unroll
          for (int j = 0; j < N; ++j) {
            dots[i].corner[number] += gradient[j] * values[j];
          }
        });
        store_pack_if(stored[i], target[i] + column, pack_of<T, N>(gradient));
      }
    }
  }
}

// The gradients of a tap and offset group.
template <typename T, int kColumns, int kMostSlices>
RESNET_CUDA_BODY void FusedColumnGradient<T, kColumns, kMostSlices>::write(
    int own_pixel,
    int offset_group,
    int tap,
    int in_quad,
    const Dots (&dots)[kThreadRows]) const {
  Dots sum;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float of_row[kThreadRows];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      of_row[i] = dots[i].corner[j];
      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 1);
      of_row[i] += RESNET_CUDA_SHUFFLE_XOR(of_row[i], 2);
    }
    sum.corner[j] = in_quad % kThreadRows == 0 ? of_row[0] : of_row[1];
  }
  const BlockPixel own = pixel(hidden(own_pixel));
  if (own.inside && in_quad < kThreadRows) {
    const Chunk& chunk = call.chunk;
    const int in_image = (chunk.first_row + own.row) * static_cast<int>(chunk.shape.out_width) + own.column;
    const int channel = offset_group * static_cast<int>(chunk.shape.taps()) + tap;
    call.grads.write(chunk.first_image + own.image, in_image, channel, slopes().get(own_pixel % kPixels), sum);
  }
}

}  // namespace resnet_cuda
