// The end of the fused forward: what becomes of a tile's sums.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_epilogue.cuh"
#include "deform_conv_fused/cuda_forward.cuh"

namespace resnet_cuda {

// By all threads with sums, after finish_products.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::finish(int thread, Sums& sums) const {
  // All are done with the samples and with the weight, through whose memory the sums and the results now pass.
  device::sync_threads(2, kConsumers);
  if constexpr (kDepthParts > 1) {
    if (!add_depth_parts(thread, sums)) {
      return;
    }
  }
  if constexpr (kSplits) {
    if (split_sums != nullptr) {
      write_sums(thread, sums);
      return;
    }
  }
  write(thread, sums);
}

// Adds the sums of the second half of the warpgroups to those of the first, which have the same pixels and columns;
// whether the thread is of the first.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY bool FusedForward<T, kTilePixels, kColumns, kUniform>::add_depth_parts(int thread, Sums& sums) {
  static_assert(kDepthParts == 2);
  constexpr int kHalf = kThreads / 2;
  constexpr int kPacks = Sums::kCount / 4;
  const int in_half = thread % kHalf;
  const device::Shared<Pack<float, 4>> exchange(
      kSamples + in_half / device::kWarpgroup * kExchangedBytes, kPacks * device::kWarpgroup);
  const int first = in_half % device::kWarpgroup;
  if (thread >= kHalf) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      exchange.set(
          i * device::kWarpgroup + first,
          {{sums.get(4 * i), sums.get(4 * i + 1), sums.get(4 * i + 2), sums.get(4 * i + 3)}});
    }
  }
  device::sync_threads(2, kThreads);
  if (thread >= kHalf) {
    return false;
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const Pack<float, 4> other = exchange.get(i * device::kWarpgroup + first);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sums.add(4 * i + j, other.element[j]);
    }
  }
  device::sync_threads(3 + in_half / device::kWarpgroup, device::kWarpgroup);  // all of the warpgroup have read
  return true;
}

// A part's sums as they are. Four threads write 8 neighbouring columns of a pixel: a sector of 32 bytes.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::write_sums(int thread, const Sums& sums) const {
  const Tile here = tile();
  const auto group_columns = static_cast<int>(call.shape.group_out_channels());
  const int64_t first = here.split * call.pixels;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = device::result_row(thread, 2 * half);
    if (row < here.pixels) {
      float* to = split_sums + (first + output_pixel(here, row)) * call.shape.out_channels +
                  here.group * group_columns + here.first_column;
#pragma unroll
      for (int i = 2 * half; i < Sums::kCount; i += 4) {
        const int column = device::result_column(thread, i);
        if (here.first_column + column < group_columns) {
          store_pack(to + column, Pack<float, 2>{{sums.get(i), sums.get(i + 1)}});
        }
      }
    }
  }
}

// 256 bytes of a row at a time: rounded into shared memory, from there in packs of 16 bytes to the output. Tiles of
// 64 pixels, and kUniform, 128 bytes: the compiler loads the bias of all of it first, for which their registers do
// not suffice.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::write(int thread, const Sums& sums) const {
  constexpr int kAtOnce = (kPixels == 64 || kUniform ? 128 : 256) / static_cast<int>(sizeof(T));
  constexpr int kAtOncePacks = kAtOnce / N;
  using Pair = PackWord<T, 2>;
  constexpr int kRows = device::kProductRows;
  constexpr int kGroupBytes = kDepthParts > 1 ? kExchangedBytes : kRows * kAtOnce * static_cast<int>(sizeof(T));
  static_assert(kConsumers / device::kWarpgroup / kDepthParts * kGroupBytes <= kPlan - kSamples);
  const int warpgroup = thread / device::kWarpgroup;
  const int in_group = thread % device::kWarpgroup;
  Tile here = tile();
  if constexpr (kColumnParts > 1) {
    here.first_column += warpgroup / kRowParts * kPartColumns;
  }
  const auto group_columns = static_cast<int>(call.shape.group_out_channels());
  const int first_channel = here.group * group_columns + here.first_column;
  const int place = kSamples + warpgroup * kGroupBytes;
  const device::Shared<Pair> pairs(place, kRows * kAtOnce / 2);
  const device::Shared<Pack<T, N>> packs(place, kRows * kAtOncePacks);
#pragma unroll
  for (int first = 0; first < kPartColumns; first += kAtOnce) {
#pragma unroll
    for (int i = first / 2; i < (first + kAtOnce) / 2; i += 2) {
      const int row = device::result_row(in_group, i);
      const int column = device::result_column(in_group, i);
      float value[2] = {sums.get(i), sums.get(i + 1)};
      const bool biased = bias != nullptr && here.first_column + column < group_columns;
      add_bias(biased ? bias + first_channel + column : nullptr, relu, value);
      const Pack<T, 2> pack = pack_of<T, 2>(value);
      Pair bits;
      memcpy(&bits, &pack, sizeof(bits));
      // The packs of a row are XOR-swizzled by its number against bank conflicts between rows.
      const int in_row = column - first;
      pairs.set((row * kAtOncePacks + (in_row / N ^ row % 8)) * (N / 2) + in_row % N / 2, bits);
    }
    device::sync_threads(3 + warpgroup, device::kWarpgroup);
#pragma unroll 1
    for (int index = in_group; index < kRows * kAtOncePacks; index += device::kWarpgroup) {
      const int row = index / kAtOncePacks;
      const int column = first + index % kAtOncePacks * N;
      const int in_tile = warpgroup % kRowParts * kRows + row;
      if (in_tile < here.pixels && here.first_column + column < group_columns) {
        store_pack(
            output + output_pixel(here, in_tile) * call.shape.out_channels + first_channel + column,
            packs.get(row * kAtOncePacks + (index % kAtOncePacks ^ row % 8)));
      }
    }
    device::sync_threads(3 + warpgroup, device::kWarpgroup);
  }
}

}  // namespace resnet_cuda
