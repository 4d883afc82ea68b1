// The columns of a chunk: every tap of every pixel, sampled.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// A block does `tap_step` taps of one tile for one offset group: it plans them once, in shared memory, and then all
// its channels. N channels are one load; `lanes` threads share a row of the columns.
template <typename T, typename Real, int N>
struct SampleColumns {
  static constexpr int kThreads = 256;
  static constexpr int kMostTaps = 9;

  // What a tap reads: pixels of the image, -1 for those that count as 0, and their weights, the mask included.
  struct alignas(16) Entry {
    int corner[4];
    Real weight[4];
  };
  static constexpr int kSharedBytes = kMostTaps * kTilePixels * static_cast<int>(sizeof(Entry));

  Chunk chunk;
  Positions positions;
  const T* input;  // [images, H, W, C]
  T* columns;
  Tiling tiling;  // of the chunk's output pixels
  int tap_step;   // at most kMostTaps
  int tap_steps;
  int lanes;  // a power of two

  RESNET_CUDA_BODY void operator()() const {
    const DeformConvShape& shape = chunk.shape;
    const int work = static_cast<int>(device::block());
    const int offset_groups = static_cast<int>(shape.offset_groups);
    const int taps = static_cast<int>(shape.taps());
    const int offset_group = work % offset_groups;
    const int first_tap = work / offset_groups % tap_steps * tap_step;
    const int tile = work / offset_groups / tap_steps;
    const int tap_count = taps - first_tap < tap_step ? taps - first_tap : tap_step;
    const int entries = tap_count * kTilePixels;

    const device::Shared<Entry> plan(0, kMostTaps * kTilePixels);
    for (int i = device::thread(); i < entries; i += kThreads) {
      plan.set(i, planned(tiling.pixel(tile, i % kTilePixels), offset_group, first_tap + i / kTilePixels));
    }
    RESNET_CUDA_SYNC_BLOCK();

    const int channels = static_cast<int>(shape.channels);
    const int group_packs = chunk.offset_group_channels / N;
    const int lane = device::thread() % lanes;
    const int64_t row_elements = chunk.group_channels;
    const TilePixel first = tiling.pixel(tile, 0);
    const T* image = input + static_cast<int64_t>(first.image) * chunk.input_pixels() * channels;
    // The slice of channels outermost: its part of the input stays in the first-level cache for all taps.
    for (int pack = lane; pack < group_packs; pack += lanes) {
      const int channel = (offset_group * group_packs + pack) * N;
      T* target = columns + column_index(chunk, 0, channel);
      const T* source = image + channel;
#pragma unroll 2
      for (int i = device::thread() / lanes; i < entries; i += kThreads / lanes) {
        const TilePixel pixel = tiling.pixel(tile, i % kTilePixels);
        if (pixel.inside) {
          const int row = ((pixel.image * chunk.rows + pixel.row) * tiling.width + pixel.column) * taps + first_tap +
                          i / kTilePixels;
          store_pack(target + row * row_elements, blend(plan.get(i), source, channels));
        }
      }
    }
  }

 private:
  RESNET_CUDA_BODY Entry planned(const TilePixel& pixel, int offset_group, int tap) const {
    Entry entry;
    for (int i = 0; i < 4; ++i) {
      entry.corner[i] = -1;
      entry.weight[i] = Real(0);
    }
    if (!pixel.inside) {
      return entry;
    }
    const auto [sample, mask] = positions.sample<Real>(
        chunk.shape,
        {chunk.first_image + pixel.image, chunk.first_row + pixel.row, pixel.column, offset_group, tap});
    if (sample.kind == TapKind::kInside) {
      for (int i = 0; i < 4; ++i) {
        if (sample.corner[i] >= 0) {
          entry.corner[i] = static_cast<int>(sample.corner[i]);
          entry.weight[i] = sample.corner_weight(i) * mask;
        }
      }
    } else {
      // Times the 0 that stands for a pixel not read: NaN for a position that is none, and for a mask that is none.
      entry.weight[0] = sample.kind == TapKind::kNan ? not_a_number<Real>() : Real(0) * mask;
    }
    return entry;
  }

  RESNET_CUDA_BODY static Pack<T, N> blend(const Entry& entry, const T* source, int channels) {
    Pack<T, N> corner[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      corner[i] = Pack<T, N>{};
      if (entry.corner[i] >= 0) {
        corner[i] = load_constant_pack<N>(source + static_cast<int64_t>(entry.corner[i]) * channels);
      }
    }
    Real sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum[j] = Real(0);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Real value[N];
      unpack(corner[i], value);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sum[j] += entry.weight[i] * value[j];
      }
    }
    return pack_of<T, N>(sum);
  }
};

}  // namespace resnet_cuda
