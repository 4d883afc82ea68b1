// The weight as the fused forward's bulk copies bring it into shared memory.
#pragma once

#include "common/fast_division.h"
#include "common/pack.cuh"
#include "common/warpgroup.cuh"

namespace resnet_cuda {

// How the weight [O, C/groups, kh, kw] becomes a sequence of parts, each of kColumns output channels and a slice of
// input channels of one tap, 64 or in float32 32, K-major and swizzled as they lie in shared memory: [groups][column
// tiles][slices][taps]. Output channels past a group's last one are zeros.
struct PackedWeight {
  int columns;       // kColumns
  int column_tiles;  // of a group
  int slices;        // of a group's input channels
  int taps;

  RESNET_CUDA_HOST_DEVICE int part_bytes() const {
    return columns * device::kSwizzledRow;
  }
  RESNET_CUDA_HOST_DEVICE int64_t tile_parts() const {
    return static_cast<int64_t>(slices) * taps;
  }
};

// Packs the weight. Index: 16 bytes of the parts.
template <typename T>
struct PackWeight {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowPacks = device::kSwizzledRow / kPackBytes;

  const T* weight;  // [O, C/groups, kh, kw], any strides
  T* parts;
  PackedWeight layout;
  int64_t out_stride, channel_stride, tap_stride;  // of `weight`
  int group_out_channels;
  FastDivision taps, slices, column_tiles, part_packs;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t part = part_packs.quotient(index);
    const auto in_part = static_cast<int>(part_packs.remainder(index));
    const int64_t slice_part = taps.quotient(part);
    const int64_t tap = taps.remainder(part);
    const int64_t tile = slices.quotient(slice_part);
    const int64_t slice = slices.remainder(slice_part);
    const int64_t group = column_tiles.quotient(tile);
    const auto column =
        static_cast<int>(column_tiles.remainder(tile)) * layout.columns + in_part / kRowPacks;  // in the group
    const int64_t channel = slice * device::kRowElementsOf<T> + in_part % kRowPacks * N;
    const T* from =
        weight + (group * group_out_channels + column) * out_stride + channel * channel_stride + tap * tap_stride;
    Pack<T, N> pack{};
    if (column < group_out_channels) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        pack.element[i] = from[i * channel_stride];
      }
      device::round_operands(pack.element);
    }
    const int place = device::swizzled(in_part * kPackBytes) / static_cast<int>(sizeof(T));
    store_pack(parts + part * (layout.part_bytes() / static_cast<int>(sizeof(T))) + place, pack);
  }
};

}  // namespace resnet_cuda
