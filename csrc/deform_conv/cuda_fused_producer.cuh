// What the producers of the fused kernels do: they sample into shared memory, from where wgmma multiplies.
#pragma once

#include <type_traits>

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_blend.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// Channels that are sampled at once, a slice: a row of 128 bytes. Of 16-bit types.
constexpr int kSliceChannels = device::kRowElements;

// Row number `index` of those that the threads of a warp sample, kRows / (kThreads / 32) in all: see sample_slice.
template <int kThreads>
RESNET_CUDA_HOST_DEVICE constexpr int sampled_row(int warp, int index) {
  constexpr int kRowThreads = kSliceChannels * 2 / kPackBytes;
  constexpr int kWarpRows = device::kWarp / kRowThreads;  // at once
  return warp * kWarpRows + index % kWarpRows + index / kWarpRows * (kThreads / kRowThreads);
}

// A slice of one tap of kRows pixels, from `source` on, into swizzled rows of 128 bytes from byte `place` of shared
// memory on. Of row i the plan is number first_planned + i. kThreads take part, 8 of them share a row; each loads the
// corners of kInFlight rows before it blends.
template <typename T, int kThreads, int kRows, int kInFlight>
RESNET_CUDA_BODY void
sample_slice(int thread, const T* source, const device::Shared<PlannedTap<float>>& plan, int first_planned, int place) {
  constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  constexpr int kRowThreads = device::kSwizzledRow / kPackBytes;
  constexpr int kRowsAtOnce = kThreads / kRowThreads;
  static_assert(kRows % (kInFlight * kRowsAtOnce) == 0, "all threads have the same number of rows");
  const int row = thread / kRowThreads;
  const int chunk = thread % kRowThreads;
  const device::Shared<Pack<T, N>> tile(place, kRows * kRowThreads);
#pragma unroll
  for (int first = 0; first < kRows; first += kInFlight * kRowsAtOnce) {
    Pack<T, N> corner[kInFlight][4];
    float weight[kInFlight][4];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const PlannedTap<float> planned = plan.get(first_planned + row + first + i * kRowsAtOnce);
      load_corners(source + chunk * N, planned.corner, corner[i]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weight[i][j] = planned.weight[j];
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      float sum[N];
      blend_corners<T>(weight[i], corner[i], sum);
      if constexpr (std::is_same_v<T, float>) {
        device::round_operands(sum);
      }
      const int at = (row + first + i * kRowsAtOnce) * device::kSwizzledRow + chunk * kPackBytes;
      tile.set(device::swizzled(at) / kPackBytes, pack_of<T, N>(sum));
    }
  }
}

}  // namespace resnet_cuda
