// The weight as an operand of the columns' gradient, where K are the output channels, and the tiles of its columns.
#pragma once

#include <numeric>

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/deform_conv_math.h"
#include "deform_conv_fused/cuda_packed_output_gradient.cuh"

namespace resnet_cuda {

// How the columns' channels are divided into tiles of kColumns columns, each of one tap, one weight group and one
// offset group; columns past a tile's channels are zeros.
struct ChannelTiles {
  int columns;        // kColumns
  int span_channels;  // in one weight group and one offset group
  int tiles;          // of all channels
  FastDivision32 span_tiles;
  FastDivision32 group_tiles;         // of a weight group
  FastDivision32 offset_group_tiles;  // of an offset group

  ChannelTiles(const DeformConvShape& shape, int tile_columns)
      : columns(tile_columns),
        span_channels(static_cast<int>(std::gcd(shape.group_channels(), shape.offset_group_channels()))) {
    const auto in_span = static_cast<int>(ceil_div(span_channels, columns));
    const auto tiles_of = [&](int64_t channels) { return static_cast<int>(channels / span_channels) * in_span; };
    tiles = tiles_of(shape.channels);
    span_tiles = FastDivision32(in_span);
    group_tiles = FastDivision32(tiles_of(shape.group_channels()));
    offset_group_tiles = FastDivision32(tiles_of(shape.offset_group_channels()));
  }

  RESNET_CUDA_HOST_DEVICE int first_channel(int tile) const {
    const int span = span_tiles.quotient(tile);
    return span * span_channels + (tile - span * span_tiles.divisor()) * columns;
  }
  RESNET_CUDA_HOST_DEVICE int channels(int tile) const {
    const int left = span_channels - span_tiles.remainder(tile) * columns;
    return left < columns ? left : columns;
  }
};

// The channel of a tile's column. Of 32 columns a thread has eight sums per row, which are of eight neighbouring
// channels: see result_column.
constexpr int kPermutedColumns = 32;
RESNET_CUDA_HOST_DEVICE constexpr int channel_of_column(int column) {
  const int in_part = column % kPermutedColumns;
  return column - in_part + in_part % 8 / 2 * 8 + in_part / 8 * 2 + in_part % 2;
}

// Packs the weight [O, C/groups, kh, kw], transposed, into parts of kColumns columns x 64 output channels, K-major and
// swizzled, contiguous for copy_bulk: [taps][tiles][slices of a group's output channels]. Zero-padded in both
// dimensions. Index: 16 bytes of the parts; neighbouring threads have neighbouring columns.
template <typename T>
struct PackTransposedWeight {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));

  const T* weight;  // [O, C/groups, kh, kw], any strides
  T* parts;
  ChannelTiles tiles;
  int64_t out_stride, channel_stride, tap_stride;  // of `weight`
  int group_channels;
  int group_out_channels;
  FastDivision part_packs, slices, tile_count;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t part = part_packs.quotient(index);
    const auto in_part = static_cast<int>(part_packs.remainder(index));
    const int64_t tap_tile = slices.quotient(part);
    const auto slice = static_cast<int>(slices.remainder(part));
    const int64_t tap = tile_count.quotient(tap_tile);
    const auto tile = static_cast<int>(tile_count.remainder(tap_tile));
    const int column = in_part % tiles.columns;
    const int chunk = in_part / tiles.columns;
    const int in_tile = channel_of_column(column);
    const int group = tiles.group_tiles.quotient(tile);
    const int channel = tiles.first_channel(tile) - group * group_channels + in_tile;  // in the group
    const int first = slice * device::kRowElements + chunk * N;                        // output channel in the group
    const T* from = weight + (static_cast<int64_t>(group) * group_out_channels + first) * out_stride +
                    channel * channel_stride + tap * tap_stride;
    Pack<T, N> pack{};
    if (in_tile < tiles.channels(tile)) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (first + i < group_out_channels) {
          pack.element[i] = from[i * out_stride];
        }
      }
    }
    const int place = device::swizzled(column * device::kSwizzledRow + chunk * kPackBytes);
    store_pack(parts + (part * part_packs.divisor() * kPackBytes + place) / static_cast<int64_t>(sizeof(T)), pack);
  }
};

}  // namespace resnet_cuda
