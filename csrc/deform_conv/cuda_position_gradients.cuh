// The gradients for offsets and masks and, in the same pass, the columns sampled again for the gradient of the weight.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// A block does `tap_step` taps of one tile for one offset group, `lanes` threads a tap of a pixel. With the four
// corners' dot products with the columns' gradient, all three gradients are a few operations per tap and not per
// channel.
template <typename T, typename Real, int N>
struct PositionGradients {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = sizeof(Real) == 8 ? 2 : 3;
  static constexpr int kMostTaps = 9;

  struct alignas(16) Entry {
    TapKind kind;
    int corner[4];  // in packs, as SampleColumns has them
    Real fraction_y;
    Real fraction_x;
    Real mask;
  };
  static constexpr int kSharedBytes = kMostTaps * kTilePixels * static_cast<int>(sizeof(Entry));

  Chunk chunk;
  Positions positions;
  PositionPlane grad_offset;  // data may be null
  PositionPlane grad_mask;    // data may be null
  const T* input;             // [images, H, W, C]
  T* columns;                 // their gradient; overwritten with the columns themselves where `resample`
  bool resample;
  Tiling tiling;  // of the chunk's output pixels
  int tap_step;
  int tap_steps;
  int lanes;

  RESNET_CUDA_BODY void operator()() const {
    const DeformConvShape& shape = chunk.shape;
    const auto work = static_cast<int>(device::block());
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
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * shape.channels;
    const int row = ((pixel.image * chunk.rows + pixel.row) * tiling.width + pixel.column) * taps + first_tap;
    // All lanes of a warp go round equally often, because they sum up together.
    for (int first = 0; first < tap_count; first += mine.tap_step) {
      const int tap = first + mine.first_tap;
      const bool active = tap < tap_count && pixel.inside;
      Real dot[4] = {};
      if (active) {
        multiply(plan.get(tap * kTilePixels + mine.pixel), image, offset_group, row + tap, mine.lane, dot);
      }
      for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          dot[corner] += RESNET_CUDA_SHUFFLE_XOR(dot[corner], distance);
        }
      }
      if (active && mine.lane == 0) {
        write(pixel, offset_group, first_tap + tap, plan.get(tap * kTilePixels + mine.pixel), dot);
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

  // The gradient for the mask: the dot product of what the tap reads with the columns' gradient.
  RESNET_CUDA_BODY static Real value_of(const TapSample<Real>& sample, const Real (&dot)[4]) {
    switch (sample.kind) {
      case TapKind::kInside:
        return sample.corner_weight(0) * dot[0] + sample.corner_weight(1) * dot[1] + sample.corner_weight(2) * dot[2] +
               sample.corner_weight(3) * dot[3];
      case TapKind::kNan:
        return not_a_number<Real>();
      default:
        return Real(0);
    }
  }

  // Adds this thread's channels of the row to the four dot products.
  RESNET_CUDA_BODY void
  multiply(const Entry& entry, const T* image, int offset_group, int row, int lane, Real (&dot)[4]) const {
    const int group_channels = chunk.offset_group_channels;
    const TapSample<Real> sample = sample_of(entry);
    const bool inside = entry.kind == TapKind::kInside;
    const Real otherwise = (entry.kind == TapKind::kNan ? not_a_number<Real>() : Real(0)) * entry.mask;
    Real weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] = entry.corner[i] >= 0 ? sample.corner_weight(i) * entry.mask : Real(0);
    }
    // Not unrolled: the registers that this takes where N is 1 make it spill on sm_100 and sm_120.
#pragma unroll 1
    for (int in_group = lane * N; in_group < group_channels; in_group += lanes * N) {
      const int channel = offset_group * group_channels + in_group;
      T* column = columns + column_index(chunk, row, channel);
      Pack<T, N> corner[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        corner[i] = load_constant_pack_or_zeros<N>(image + channel, entry.corner[i]);
      }
      Real grad[N];
      unpack(load_pack<N>(column), grad);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Real value[N];
        unpack(corner[i], value);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          dot[i] += grad[j] * value[j];
        }
      }
      if (resample) {
        Real sampled[N];
        blend_corners<T>(weight, corner, sampled);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          sampled[j] = inside ? sampled[j] : otherwise;
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
