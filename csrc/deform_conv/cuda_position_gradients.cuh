// The gradients for offsets and masks and, in the same pass, the columns sampled again for the gradient of the weight.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// Per tap of a pixel, four dot products over the channels: each corner's values with the columns' gradient. They give
// the gradients for the offset's y and x and for the mask, once per tap and not per channel.
template <typename T, typename Real, int N>
struct PositionGradients {
  static constexpr int kThreads = kTileThreads;
  static constexpr int kBlocksPerMultiprocessor = sizeof(Real) == 8 ? 2 : 3;

  struct alignas(16) Entry {
    TapKind kind;
    int corner[4];  // in packs, as in SampleColumns
    Real fraction_y;
    Real fraction_x;
    Real mask;
  };
  static constexpr int kSharedBytes = kMostPlanned * static_cast<int>(sizeof(Entry));

  Chunk chunk;
  Positions positions;
  PositionPlane grad_offset;  // data may be null
  PositionPlane grad_mask;    // data may be null
  const T* input;             // [images, H, W, C]
  T* columns;                 // their gradient; with `resample` overwritten with the columns themselves
  bool resample;
  TapDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const TapBlock block(chunk, division);
    const device::Shared<Entry> plan(0, kMostPlanned);
    block.make_plan(plan, division.tiling, [&](const TilePixel& pixel, int tap) {
      return planned(pixel, block.offset_group, tap);
    });

    const TileThread mine(device::thread(), division.row_threads);
    const TilePixel pixel = division.tiling.pixel(block.tile, mine.pixel);
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * chunk.shape.channels;
    const int row = division.tiling.index(pixel) * static_cast<int>(chunk.shape.taps()) + block.first_tap;
    // The same number of rounds for all threads of a warp, as every shuffle needs all of them.
    for (int first = 0; first < block.tap_count; first += mine.tap_step) {
      const int tap = first + mine.first_tap;
      const bool active = tap < block.tap_count && pixel.inside;
      Real dot[4] = {};
      if (active) {
        multiply(plan.get(tap * kTilePixels + mine.pixel), image, block.offset_group, row + tap, mine.in_row, dot);
      }
      for (int distance = division.row_threads / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          dot[corner] += RESNET_CUDA_SHUFFLE_XOR(dot[corner], distance);
        }
      }
      if (active && mine.in_row == 0) {
        write(pixel, block.offset_group, block.first_tap + tap, plan.get(tap * kTilePixels + mine.pixel), dot);
      }
    }
  }

 private:
  RESNET_CUDA_BODY Entry planned(const TilePixel& pixel, int offset_group, int tap) const {
    Entry entry{TapKind::kOutside, {-1, -1, -1, -1}, Real(0), Real(0), Real(0)};
    if (pixel.inside) {
      const auto [sample, mask] = positions.sample<Real>(
          chunk.shape, {chunk.first_image + pixel.image, chunk.first_row + pixel.row, pixel.column, offset_group, tap});
      entry.kind = sample.kind;
      for (int i = 0; i < 4; ++i) {
        entry.corner[i] = sample.corner[i] < 0
                              ? -1
                              : static_cast<int>(sample.corner[i]) * (static_cast<int>(chunk.shape.channels) / N);
      }
      entry.fraction_y = sample.fraction_y;
      entry.fraction_x = sample.fraction_x;
      entry.mask = mask;
    }
    return entry;
  }

  RESNET_CUDA_BODY static TapSample<Real> sample_of(const Entry& entry) {
    TapSample<Real> sample{};
    sample.kind = entry.kind;
    sample.fraction_y = entry.fraction_y;
    sample.fraction_x = entry.fraction_x;
    return sample;
  }

  // The gradient for the mask: the dot product of the tap's sample with the columns' gradient.
  RESNET_CUDA_BODY static Real value_of(const TapSample<Real>& sample, const Real (&dot)[4]) {
    switch (sample.kind) {
      case TapKind::kInside:
        return sample.corner_weight(0) * dot[0] + sample.corner_weight(1) * dot[1] + sample.corner_weight(2) * dot[2] +
               sample.corner_weight(3) * dot[3];
      case TapKind::kNan:
        return not_a_number<Real>();
      case TapKind::kOutside:
      case TapKind::kBorder:
        break;
    }
    return Real(0);
  }

  // Adds this thread's channels of the row to the four dot products.
  RESNET_CUDA_BODY void
  multiply(const Entry& entry, const T* image, int offset_group, int row, int in_row, Real (&dot)[4]) const {
    const int group_channels = chunk.offset_group_channels;
    const TapSample<Real> sample = sample_of(entry);
    const bool inside = entry.kind == TapKind::kInside;
    const Real outside_sample = (entry.kind == TapKind::kNan ? not_a_number<Real>() : Real(0)) * entry.mask;
    Real weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] = entry.corner[i] >= 0 ? sample.corner_weight(i) * entry.mask : Real(0);
    }
    // Not unrolled: with N = 1 that takes so many registers that they spill on sm_100 and sm_120.
#pragma unroll 1
    for (int in_group = in_row * N; in_group < group_channels; in_group += division.row_threads * N) {
      const int channel = offset_group * group_channels + in_group;
      T* column = columns + column_index(chunk, row, channel);
      Pack<T, N> corner[4];
      load_corners(image + channel, entry.corner, corner);
      Real grad[N];
      unpack(load_pack<N>(column), grad);
      for_each_corner_value<Real>(corner, [&](int i, const Real(&value)[N]) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          dot[i] += grad[j] * value[j];
        }
      });
      if (resample) {
        Real sampled[N];
        blend_corners<T>(weight, corner, sampled);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          sampled[j] = inside ? sampled[j] : outside_sample;
        }
        store_pack(column, pack_of<T, N>(sampled));
      }
    }
  }

  RESNET_CUDA_BODY void
  write(const TilePixel& pixel, int offset_group, int tap, const Entry& entry, const Real (&dot)[4]) const {
    const DeformConvShape& shape = chunk.shape;
    const TapSample<Real> sample = sample_of(entry);
    const int64_t image = chunk.first_image + pixel.image;
    const int64_t in_image = (chunk.first_row + pixel.row) * shape.out_width + pixel.column;
    const int64_t channel = offset_group * shape.taps() + tap;
    if (grad_offset.data != nullptr) {
      const bool is_nan = entry.kind == TapKind::kNan;
      const Real y = is_nan ? not_a_number<Real>() : entry.mask * slope_y(sample, dot);
      const Real x = is_nan ? not_a_number<Real>() : entry.mask * slope_x(sample, dot);
      grad_offset.write(image, 2 * channel, in_image, y);
      grad_offset.write(image, 2 * channel + 1, in_image, x);
    }
    if (grad_mask.data != nullptr) {
      grad_mask.write(image, channel, in_image, value_of(sample, dot));
    }
  }
};

}  // namespace resnet_cuda
