// The columns of a chunk: every tap of every pixel, sampled.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// A block does `tap_step` taps of one tile for one offset group: it plans them once, in shared memory, and then all
// its channels. N channels are one load; `lanes` threads share a row of the columns.
template <typename T, typename Real, int N>
struct SampleColumns {
  static constexpr int kThreads = 256;
  static constexpr int kMostTaps = 9;

  // What a tap reads: places in the image in packs, without the channel, -1 for those that count as 0, and their
  // weights, the mask included.
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

    const TileThread mine(device::thread(), kThreads, lanes);
    const TilePixel pixel = tiling.pixel(tile, mine.pixel);
    if (!pixel.inside) {
      return;
    }
    const int group_packs = chunk.offset_group_channels / N;
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * shape.channels;
    const int row = ((pixel.image * chunk.rows + pixel.row) * tiling.width + pixel.column) * taps + first_tap;
    // The slice of channels outermost: its part of the input stays in the first-level cache for all taps.
    for (int pack = mine.lane; pack < group_packs; pack += lanes) {
      const int channel = (offset_group * group_packs + pack) * N;
      T* target = columns + column_index(chunk, row + mine.first_tap, channel);
#pragma unroll 2
      for (int tap = mine.first_tap; tap < tap_count; tap += mine.tap_step) {
        store_pack(target, blend(plan.get(tap * kTilePixels + mine.pixel), image + channel));
        target += mine.tap_step * chunk.group_channels;
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
        chunk.shape, {chunk.first_image + pixel.image, chunk.first_row + pixel.row, pixel.column, offset_group, tap});
    if (sample.kind == TapKind::kInside) {
      for (int i = 0; i < 4; ++i) {
        if (sample.corner[i] >= 0) {
          entry.corner[i] = static_cast<int>(sample.corner[i]) * (static_cast<int>(chunk.shape.channels) / N);
          entry.weight[i] = sample.corner_weight(i) * mask;
        }
      }
    } else {
      // Times the 0 that stands for a pixel not read: NaN for a position that is none, and for a mask that is none.
      entry.weight[0] = sample.kind == TapKind::kNan ? not_a_number<Real>() : Real(0) * mask;
    }
    return entry;
  }

  RESNET_CUDA_BODY static Pack<T, N> blend(const Entry& entry, const T* source) {
    Pack<T, N> corner[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      corner[i] = load_constant_pack_or_zeros<N>(source, entry.corner[i]);
    }
    Real sum[N];
    blend_corners<T>(entry.weight, corner, sum);
    return pack_of<T, N>(sum);
  }
};

}  // namespace resnet_cuda
