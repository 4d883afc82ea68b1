// im2col with sampling: the columns of a chunk, every tap of every pixel.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// A block plans its taps once, in shared memory, for all channels of its slice. N channels are one load.
template <typename T, typename Real, int N>
struct SampleColumns {
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kSharedBytes = kMostPlanned * static_cast<int>(sizeof(PlannedTap<Real>));

  Chunk chunk;
  Positions positions;
  const T* input;  // [images, H, W, C]
  T* columns;
  TapDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const int group_packs = chunk.offset_group_channels / N;
    const TapBlock block(chunk, division, group_packs);
    const device::Shared<PlannedTap<Real>> plan(0, kMostPlanned);
    const int pixel_packs = static_cast<int>(chunk.shape.channels) / N;
    block.template for_each_tap<Real>(chunk, division, positions, [&](int place, const MaskedSample<Real>& tap) {
      plan.set(place, planned_tap(tap, pixel_packs, false));
    });
    RESNET_CUDA_SYNC_BLOCK();

    const PixelThread mine(device::thread(), division.row_threads);
    const BlockPixel pixel = block.pixel(chunk, division, mine.pixel);
    if (!pixel.inside) {
      return;
    }
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * chunk.shape.channels;
    const int row = chunk.row_of(pixel.image, pixel.row, pixel.column) + block.first_tap + mine.first_tap;
    // Channels in the outer loop: the taps' pixels, of these channels, stay in the L1 cache.
    int pack = block.first_pack + mine.in_row;
    if (division.pairs) {
      for (; pack + kMostRowThreads < block.end_pack; pack += 2 * kMostRowThreads) {
        sample<2>(plan, mine, block, image, row, block.offset_group * group_packs + pack);
      }
    }
    for (; pack < block.end_pack; pack += division.row_threads) {
      sample<1>(plan, mine, block, image, row, block.offset_group * group_packs + pack);
    }
  }

 private:
  // The taps of `kCount` packs of a row, `pack` and the one kMostRowThreads behind it: one read of the plan for both.
  template <int kCount>
  RESNET_CUDA_BODY void sample(
      const device::Shared<PlannedTap<Real>>& plan,
      const PixelThread& mine,
      const TapBlock& block,
      const T* image,
      int row,
      int pack) const {
    constexpr int kApart = kMostRowThreads * N;
    const T* source = image + pack * N;
    T* target = columns + column_index(chunk, division.group_channels, row, pack * N);
#pragma unroll 1
    for (int tap = mine.first_tap; tap < block.tap_count; tap += mine.tap_step) {
      const PlannedTap<Real> planned = plan.get(tap * kBlockPixels + mine.pixel);
      Pack<T, N> corner[kCount][4];
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        load_corners(source + i * kApart, planned.corner, corner[i]);
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        Real sum[N];
        blend_corners<T>(planned.weight, corner[i], sum);
        store_pack(target + i * kApart, pack_of<T, N>(sum));
      }
      target += mine.tap_step * chunk.group_channels;
    }
  }
};

}  // namespace resnet_cuda
