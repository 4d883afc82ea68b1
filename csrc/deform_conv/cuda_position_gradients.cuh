// The gradients for offsets and masks and, in the same pass, the columns sampled again for the gradient of the weight.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// Per tap of a pixel, four dot products over the channels: each corner's values with the columns' gradient. They give
// the gradients for the offset's y and x and for the mask, once per tap and not per channel.
template <typename T, typename Real, int N>
struct PositionGradients {
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kBlocksPerMultiprocessor = 2;

  // What the derivatives of a tap need beside its dot products.
  struct alignas(16) Slope {
    TapKind kind;
    Real fraction_y;
    Real fraction_x;
    Real mask;
  };
  struct alignas(16) Dots {
    Real corner[4];
  };
  static constexpr int kSlopes = kMostPlanned * static_cast<int>(sizeof(PlannedTap<Real>));
  static constexpr int kDots = kSlopes + kMostPlanned * static_cast<int>(sizeof(Slope));
  static constexpr int kSharedBytes = kDots + kMostPlanned * static_cast<int>(sizeof(Dots));

  Chunk chunk;
  Positions positions;
  PositionPlane grad_offset;  // data may be null
  PositionPlane grad_mask;    // data may be null
  const T* input;             // [images, H, W, C]
  T* columns;                 // their gradient; with `resample` overwritten with the columns themselves
  bool resample;
  TapDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const int group_packs = chunk.offset_group_channels / N;
    const TapBlock block(chunk, division, group_packs);
    const device::Shared<PlannedTap<Real>> plan(0, kMostPlanned);
    const device::Shared<Slope> slopes(kSlopes, kMostPlanned);
    const device::Shared<Dots> dots(kDots, kMostPlanned);
    const int pixel_packs = static_cast<int>(chunk.shape.channels) / N;
    block.template for_each_tap<Real>(chunk, division, positions, [&](int place, const MaskedSample<Real>& tap) {
      plan.set(place, planned_tap(tap, pixel_packs, true));
      slopes.set(place, {tap.sample.kind, tap.sample.fraction_y, tap.sample.fraction_x, tap.mask});
    });
    RESNET_CUDA_SYNC_BLOCK();

    const PixelThread mine(device::thread(), division.row_threads);
    const BlockPixel pixel = block.pixel(chunk, division, mine.pixel);
    const T* image = input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * chunk.shape.channels;
    const int row = chunk.row_of(pixel.image, pixel.row, pixel.column) + block.first_tap;
    const int first_pack = block.offset_group * group_packs + mine.in_row;
    // The same number of rounds for all threads of a warp, as every shuffle needs all of them.
    for (int first = 0; first < block.tap_count; first += mine.tap_step) {
      const int tap = first + mine.first_tap;
      const int place = tap * kBlockPixels + mine.pixel;
      const bool active = tap < block.tap_count && pixel.inside;
      Dots dot{};
      if (active) {
        const PlannedTap<Real> planned = plan.get(place);
        const int end_pack = (block.offset_group + 1) * group_packs;
        multiply(planned, image, row + tap, first_pack, end_pack, dot);
        // A tap at the border has corners, but its sample counts as 0 and not as 0 times an infinite pixel.
        if (resample && planned.corner[0] < 0 && slopes.get(place).kind == TapKind::kBorder) {
          fill(planned.weight[0], row + tap, first_pack, end_pack);
        }
      }
      for (int distance = division.row_threads / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          dot.corner[corner] += RESNET_CUDA_SHUFFLE_XOR(dot.corner[corner], distance);
        }
      }
      if (active && mine.in_row == 0) {
        dots.set(place, dot);
      }
    }
    RESNET_CUDA_SYNC_BLOCK();
    write(block, slopes, dots);
  }

 private:
  // Adds this thread's packs of a row of the columns' gradient to the four dot products.
  RESNET_CUDA_BODY void
  multiply(const PlannedTap<Real>& planned, const T* image, int row, int pack, int end_pack, Dots& dot) const {
    if (division.pairs) {
      const T* source = image + pack * N;
      T* column = columns + static_cast<int64_t>(row) * chunk.group_channels + pack * N;
#pragma unroll 1
      for (; pack + kMostRowThreads < end_pack; pack += 2 * kMostRowThreads) {
        multiply_packs<2>(planned, source, column, dot);
        source += 2 * kMostRowThreads * N;
        column += 2 * kMostRowThreads * N;
      }
    }
#pragma unroll 1
    for (; pack < end_pack; pack += division.row_threads) {
      T* column = columns + column_index(chunk, division.group_channels, row, pack * N);
      multiply_packs<1>(planned, image + pack * N, column, dot);
    }
  }

  // Of `kCount` packs, kMostRowThreads packs apart.
  template <int kCount>
  RESNET_CUDA_BODY void multiply_packs(const PlannedTap<Real>& planned, const T* source, T* column, Dots& dot) const {
    constexpr int kApart = kMostRowThreads * N;
    Pack<T, N> grads[kCount];
    Pack<T, N> corner[kCount][4];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      grads[i] = load_pack<N>(column + i * kApart);
      load_corners(source + i * kApart, planned.corner, corner[i]);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      Real grad[N];
      unpack(grads[i], grad);
      for_each_corner_value<Real>(corner[i], [&](int number, const Real(&value)[N]) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          dot.corner[number] += grad[j] * value[j];
        }
      });
      if (resample) {
        Real sampled[N];
        blend_corners<T>(planned.weight, corner[i], sampled);
        store_pack(column + i * kApart, pack_of<T, N>(sampled));
      }
    }
  }

  // Overwrites this thread's packs of a row of the columns.
  RESNET_CUDA_BODY void fill(Real value, int row, int pack, int end_pack) const {
    Real values[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      values[j] = value;
    }
    for (; pack < end_pack; pack += division.row_threads) {
      store_pack(columns + column_index(chunk, division.group_channels, row, pack * N), pack_of<T, N>(values));
    }
  }

  // The gradients, from the dot products in shared memory.
  RESNET_CUDA_BODY void
  write(const TapBlock& block, const device::Shared<Slope>& slopes, const device::Shared<Dots>& dots) const {
    const int lane = device::thread() % device::kWarp;
    const BlockPixel pixel = block.pixel(chunk, division, lane);
    if (!pixel.inside) {
      return;
    }
    const int64_t image = chunk.first_image + pixel.image;
    const int in_image = (chunk.first_row + pixel.row) * static_cast<int>(chunk.shape.out_width) + pixel.column;
    const int64_t first_offset = grad_offset.first(image, in_image);
    const int64_t first_mask = grad_mask.first(image, in_image);
    const int first_channel = block.offset_group * static_cast<int>(chunk.shape.taps()) + block.first_tap;
    for (int tap = device::thread() / device::kWarp; tap < block.tap_count; tap += kThreads / device::kWarp) {
      const Slope slope = slopes.get(tap * kBlockPixels + lane);
      const Dots dot = dots.get(tap * kBlockPixels + lane);
      const int channel = first_channel + tap;
      const bool is_nan = slope.kind == TapKind::kNan;
      if (grad_offset.data != nullptr) {
        const Real y = is_nan ? not_a_number<Real>() : slope.mask * slope_y(slope, dot.corner);
        const Real x = is_nan ? not_a_number<Real>() : slope.mask * slope_x(slope, dot.corner);
        grad_offset.write(grad_offset.element(first_offset, 2 * channel), y);
        grad_offset.write(grad_offset.element(first_offset, 2 * channel + 1), x);
      }
      if (grad_mask.data != nullptr) {
        grad_mask.write(grad_mask.element(first_mask, channel), is_nan ? not_a_number<Real>() : value(slope, dot));
      }
    }
  }

  // The gradient for the mask: the dot product of the tap's sample with the columns' gradient.
  RESNET_CUDA_BODY static Real value(const Slope& slope, const Dots& dot) {
    if (slope.kind != TapKind::kInside) {
      return Real(0);
    }
    Real sum = Real(0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum += bilinear_weight(slope.fraction_y, slope.fraction_x, i) * dot.corner[i];
    }
    return sum;
  }
};

}  // namespace resnet_cuda
