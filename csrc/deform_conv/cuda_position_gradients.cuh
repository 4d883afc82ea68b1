// The gradients for offsets and masks and, in the same pass, the columns sampled again for the gradient of the weight.
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv/cuda_tap_slopes.cuh"

namespace resnet_cuda {

// Per tap of a pixel, four dot products over the channels: each corner's values with the columns' gradient. They give
// the gradients for the offset's y and x and for the mask, once per tap and not per channel.
template <typename T, typename Real, int N>
struct PositionGradients {
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kBlocksPerMultiprocessor = 2;

  using Slope = TapSlope<Real>;
  using Dots = CornerDots<Real>;
  static constexpr int kSlopes = kMostPlanned * static_cast<int>(sizeof(PlannedTap<Real>));
  static constexpr int kDots = kSlopes + kMostPlanned * static_cast<int>(sizeof(Slope));
  static constexpr int kSharedBytes = kDots + kMostPlanned * static_cast<int>(sizeof(Dots));

  Chunk chunk;
  Positions positions;
  PositionGradientPlanes grads;
  const T* input;  // [images, H, W, C]
  T* columns;      // their gradient; with `resample` overwritten with the columns themselves
  bool resample;
  TapDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const int group_packs = chunk.offset_group_channels / N;
    const TapBlock block(chunk, division, group_packs);
    const device::Shared<PlannedTap<Real>> plan(0, kMostPlanned);
    const device::Shared<Slope> slopes(kSlopes, kMostPlanned);
    const int pixel_packs = static_cast<int>(chunk.shape.channels) / N;
    block.template for_each_tap<Real>(chunk, division, positions, [&](int place, const MaskedSample<Real>& tap) {
      plan.set(place, planned_tap(tap, pixel_packs, true));
      slopes.set(place, tap_slope(tap));
    });
    RESNET_CUDA_SYNC_BLOCK();

    // Pairs of packs only: the threads of a row have compile-time places.
    if (division.pairs && group_packs % (2 * kMostRowThreads) == 0) {
      dots_of_pairs(block, plan, slopes);
    } else {
      dots_of_packs(block, plan, slopes);
    }
    RESNET_CUDA_SYNC_BLOCK();
    write(block, slopes);
  }

 private:
  RESNET_CUDA_BODY void dots_of_pairs(
      const TapBlock& block,
      const device::Shared<PlannedTap<Real>>& plan,
      const device::Shared<Slope>& slopes) const {
    const device::Shared<Real> dots(kDots, 4 * kMostPlanned);
    const int group_packs = chunk.offset_group_channels / N;
    const PixelThread mine(device::thread(), kMostRowThreads);
    const BlockPixel pixel = block.pixel(chunk, division, mine.pixel);
    const int first = (block.offset_group * group_packs + mine.in_row) * N;
    const T* source = image_of(pixel) + first;
    const int row = chunk.row_of(pixel.image, pixel.row, pixel.column) + block.first_tap;
    T* column = columns + static_cast<int64_t>(row) * chunk.group_channels + first;
#pragma unroll 1
    for (int tap = 0; tap < block.tap_count; ++tap) {
      const int place = tap * kBlockPixels + mine.pixel;
      Dots dot{};
      if (pixel.inside) {
        const PlannedTap<Real> planned = plan.get(place);
#pragma unroll 1
        for (int element = 0; element < chunk.offset_group_channels; element += 2 * kMostRowThreads * N) {
          multiply<2>(planned, source + element, column + element, dot);
        }
        if (is_border(planned, slopes, place)) {
#pragma unroll 1
          for (int element = 0; element < chunk.offset_group_channels; element += kMostRowThreads * N) {
            fill(column + element, planned.weight[0]);
          }
        }
      }
      const Real sum = sum_of_row(dot, mine.in_row);
      if (pixel.inside && mine.in_row % 2 == 0) {
        dots.set(4 * place + mine.in_row / 2, sum);
      }
      column += chunk.group_channels;
    }
  }

  // Any number of packs, threads per row and weight groups.
  RESNET_CUDA_BODY void dots_of_packs(
      const TapBlock& block,
      const device::Shared<PlannedTap<Real>>& plan,
      const device::Shared<Slope>& slopes) const {
    const device::Shared<Dots> dots(kDots, kMostPlanned);
    const int group_packs = chunk.offset_group_channels / N;
    const PixelThread mine(device::thread(), division.row_threads);
    const BlockPixel pixel = block.pixel(chunk, division, mine.pixel);
    const T* image = image_of(pixel);
    const int row = chunk.row_of(pixel.image, pixel.row, pixel.column) + block.first_tap;
    const int end_pack = (block.offset_group + 1) * group_packs;
    // The same number of rounds for all threads of a warp, as every shuffle needs all of them.
#pragma unroll 1
    for (int first = 0; first < block.tap_count; first += mine.tap_step) {
      const int tap = first + mine.first_tap;
      const int place = tap * kBlockPixels + mine.pixel;
      const bool active = tap < block.tap_count && pixel.inside;
      Dots dot{};
      if (active) {
        const PlannedTap<Real> planned = plan.get(place);
        const bool border = is_border(planned, slopes, place);
#pragma unroll 1
        for (int pack = end_pack - group_packs + mine.in_row; pack < end_pack; pack += division.row_threads) {
          T* column = columns + column_index(chunk, division.group_channels, row + tap, pack * N);
          multiply<1>(planned, image + pack * N, column, dot);
          if (border) {
            fill(column, planned.weight[0]);
          }
        }
      }
#pragma unroll 1
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
  }

  RESNET_CUDA_BODY const T* image_of(const BlockPixel& pixel) const {
    return input + static_cast<int64_t>(pixel.image) * chunk.input_pixels() * chunk.shape.channels;
  }

  // A tap at the border has corners, but its sample counts as 0 and not as 0 times an infinite pixel.
  RESNET_CUDA_BODY bool is_border(const PlannedTap<Real>& planned, const device::Shared<Slope>& slopes, int place)
      const {
    return resample && planned.corner[0] < 0 && slopes.get(place).kind == TapKind::kBorder;
  }

  RESNET_CUDA_BODY static void fill(T* column, Real value) {
    Real values[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      values[j] = value;
    }
    store_pack(column, pack_of<T, N>(values));
  }

  // Adds `kCount` packs of a row of the columns' gradient, kMostRowThreads packs apart, to the four dot products.
  template <int kCount>
  RESNET_CUDA_BODY void multiply(const PlannedTap<Real>& planned, const T* source, T* column, Dots& dot) const {
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

  // The sums over the 8 threads of a row: of corner in_row / 2 in each thread. A thread sends away what others sum.
  RESNET_CUDA_BODY static Real sum_of_row(const Dots& dot, int in_row) {
    static_assert(kMostRowThreads == 8, "two threads per corner");
    const bool lower = (in_row & 4) != 0;
    Real kept[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      kept[i] = lower ? dot.corner[2 + i] : dot.corner[i];
      kept[i] += RESNET_CUDA_SHUFFLE_XOR(lower ? dot.corner[i] : dot.corner[2 + i], 4);
    }
    const bool right = (in_row & 2) != 0;
    Real sum = right ? kept[1] : kept[0];
    sum += RESNET_CUDA_SHUFFLE_XOR(right ? kept[0] : kept[1], 2);
    return sum + RESNET_CUDA_SHUFFLE_XOR(sum, 1);
  }

  // The gradients, from the dot products in shared memory.
  RESNET_CUDA_BODY void write(const TapBlock& block, const device::Shared<Slope>& slopes) const {
    const device::Shared<Dots> dots(kDots, kMostPlanned);
    const int lane = device::thread() % device::kWarp;
    const BlockPixel pixel = block.pixel(chunk, division, lane);
    if (!pixel.inside) {
      return;
    }
    const int64_t image = chunk.first_image + pixel.image;
    const int in_image = (chunk.first_row + pixel.row) * static_cast<int>(chunk.shape.out_width) + pixel.column;
    const int first_channel = block.offset_group * static_cast<int>(chunk.shape.taps()) + block.first_tap;
    for (int tap = device::thread() / device::kWarp; tap < block.tap_count; tap += kThreads / device::kWarp) {
      const int place = tap * kBlockPixels + lane;
      grads.write(image, in_image, first_channel + tap, slopes.get(place), dots.get(place));
    }
  }
};

}  // namespace resnet_cuda
