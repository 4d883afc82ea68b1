// im2col with sampling: the columns of a chunk, every tap of every pixel.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// A block plans its taps once, in shared memory, for all channels of its offset group. N channels are one load.
template <typename T, typename Real, int N>
struct SampleColumns {
  static constexpr int kThreads = kTileThreads;

  // The plan of one tap: its corners as indices into the image in packs, without the channel, -1 for a corner that
  // counts as 0, and their weights, the mask included.
  struct alignas(16) Entry {
    int corner[4];
    Real weight[4];
  };
  static constexpr int kSharedBytes = kMostPlanned * static_cast<int>(sizeof(Entry));

  Chunk chunk;
  Positions positions;
  const T* input;  // [images, H, W, C]
  T* columns;
  TapDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const TapBlock block(chunk, division);
    const device::Shared<Entry> plan(0, kMostPlanned);
    block.make_plan(plan, division.tiling, [&](const TilePixel& pixel, int tap) {
      return planned(pixel, block.offset_group, tap);
    });

    const TileThread mine(device::thread(), division.row_threads);
    const TilePixel pixel = division.tiling.pixel(block.tile, mine.pixel);
    if (!pixel.inside) {
      return;
    }
    const int group_packs = chunk.offset_group_channels / N;
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * chunk.shape.channels;
    const int row = division.tiling.index(pixel) * static_cast<int>(chunk.shape.taps()) + block.first_tap;
    // Channels in the outer loop: the taps' pixels, of these channels, stay in the L1 cache.
    for (int pack = mine.in_row; pack < group_packs; pack += division.row_threads) {
      const int channel = (block.offset_group * group_packs + pack) * N;
      T* target = columns + column_index(chunk, row + mine.first_tap, channel);
#pragma unroll 2
      for (int tap = mine.first_tap; tap < block.tap_count; tap += mine.tap_step) {
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
      // All corners are -1, so loads give 0; weight NaN (position NaN, mask NaN or infinite) makes the sample NaN.
      entry.weight[0] = sample.kind == TapKind::kNan ? not_a_number<Real>() : Real(0) * mask;
    }
    return entry;
  }

  RESNET_CUDA_BODY static Pack<T, N> blend(const Entry& entry, const T* source) {
    Pack<T, N> corner[4];
    load_corners(source, entry.corner, corner);
    Real sum[N];
    blend_corners<T>(entry.weight, corner, sum);
    return pack_of<T, N>(sum);
  }
};

}  // namespace resnet_cuda
