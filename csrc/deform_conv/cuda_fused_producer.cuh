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

// How kThreads threads share the rows of a slice, 8 threads a row: a thread has kCount of kRows rows.
template <typename T, int kThreads, int kRows>
struct SliceThread {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowThreads = device::kSwizzledRow / kPackBytes;
  static constexpr int kRowsAtOnce = kThreads / kRowThreads;
  static constexpr int kCount = kRows / kRowsAtOnce;
  static_assert(kRows % kRowsAtOnce == 0, "all threads have the same number of rows");

  static_assert(kRowsAtOnce * device::kSwizzledRow % device::kSwizzleAtom == 0, "a thread's rows are swizzled alike");

  int first_row;
  int chunk;       // 16 bytes of a row
  int first_byte;  // their place in the slice, which begins at an atom

  RESNET_CUDA_HOST_DEVICE explicit SliceThread(int thread)
      : first_row(thread / kRowThreads),
        chunk(thread % kRowThreads),
        first_byte(device::swizzled(first_row * device::kSwizzledRow + chunk * kPackBytes)) {
  }
  RESNET_CUDA_HOST_DEVICE int row(int index) const {
    return first_row + index * kRowsAtOnce;
  }
  RESNET_CUDA_HOST_DEVICE int byte(int index) const {
    return first_byte + index * (kRowsAtOnce * device::kSwizzledRow);
  }
};

// Samples rows of 128 bytes into shared memory, each a slice of one tap of a pixel. A step's rows are kSteps::kCount of
// a thread. Loads are always under way: a thread loads the corners of kAhead rows before it blends the first one, and
// then those of another row, of the next step in the end, whenever it has blended one.
//
// A step has: source(row), where the thread's channels begin in the first image; planned(row), the number of the row's
// plan; place(row), the 16 bytes of shared memory that the sample goes to. `row` is the thread's, from 0 on.
template <typename T>
class RowSampler {
 public:
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kAhead = 4;

  RESNET_CUDA_BODY explicit RowSampler(const device::Shared<PlannedTap<float>>& plan) : plan_(plan) {
  }

  // Before the first step.
  template <typename Step>
  RESNET_CUDA_BODY void begin(const Step& step) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      load(step, i, corner_[i]);
    }
  }

  // The samples of `here`. `next` is the step that follows, whose plan must be set; after the last one it is any step.
  template <typename Step>
  RESNET_CUDA_BODY void sample(const Step& here, const Step& next) {
    static_assert(Step::kCount % kAhead == 0, "each row of a step always has the same registers");
#pragma unroll
    for (int i = 0; i < Step::kCount; ++i) {
      Pack<T, N>(&corner)[4] = corner_[i % kAhead];
      blend(here, i, corner);
      if (i + kAhead < Step::kCount) {
        load(here, i + kAhead, corner);
      } else {
        load(next, i + kAhead - Step::kCount, corner);
      }
    }
  }

 private:
  template <typename Step>
  RESNET_CUDA_BODY void load(const Step& step, int row, Pack<T, N> (&corner)[4]) const {
    load_corners(step.source(row), plan_.get(step.planned(row)).corner, corner);
  }

  template <typename Step>
  RESNET_CUDA_BODY void blend(const Step& step, int row, const Pack<T, N> (&corner)[4]) const {
    float sum[N];
    blend_corners<T>(plan_.get(step.planned(row)).weight, corner, sum);
    if constexpr (std::is_same_v<T, float>) {
      device::round_operands(sum);
    }
    device::Shared<Pack<T, N>>(step.place(row), 1).set(0, pack_of<T, N>(sum));
  }

  const device::Shared<PlannedTap<float>> plan_;
  Pack<T, N> corner_[kAhead][4];
};

}  // namespace resnet_cuda
