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

// The sample of N channels as it is multiplied.
template <typename T, int N>
RESNET_CUDA_BODY Pack<T, N> blended(const float (&weight)[4], const Pack<T, N> (&corner)[4]) {
  float sum[N];
  blend_corners<T>(weight, corner, sum);
  if constexpr (std::is_same_v<T, float>) {
    device::round_operands(sum);
  }
  return pack_of<T, N>(sum);
}

// Samples a thread's rows of one step (see RowSampler) into shared memory. Without loads ahead: other warps hide their
// latency.
template <typename T, typename Step>
RESNET_CUDA_BODY void sample_rows(const Step& step, const device::Shared<PlannedTap<float>>& plan) {
  constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  Pack<T, N> corner[Step::kCount][4];
#pragma unroll
  for (int row = 0; row < Step::kCount; ++row) {
    load_corners(step.source(row), plan.get(step.planned(row)).corner, corner[row]);
  }
#pragma unroll
  for (int row = 0; row < Step::kCount; ++row) {
    const Pack<T, N> sample = blended<T>(plan.get(step.planned(row)).weight, corner[row]);
    device::Shared<Pack<T, N>>(step.place(row), 1).set(0, sample);
  }
}

// Software-pipelined sampling into shared memory. A row is 128 bytes: a slice of the channels of one tap of one pixel.
// In each step a thread samples Step::kCount rows, kBurst at a time. While it blends a burst, the corners of the next
// burst are being loaded, at the end of a step those of the next step.
//
// All loads that are in flight from one basic block to another share one scoreboard, on which a warp can only wait for
// all of them. So before a burst is loaded the one before it must have arrived, and it must be loaded before that one
// is blended: `arrived` and the branch behind the loads keep the compiler to this order.
//
// A Step has, for the thread's row number `row`: source(row), where the thread's channels begin in the first image;
// planned(row), the index of the row's plan; place(row), the byte in shared memory where its 16 bytes are written.
template <typename T>
class RowSampler {
 public:
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kBurst = 2;

  // `zero` is 0, but the compiler must not know.
  RESNET_CUDA_BODY RowSampler(const device::Shared<PlannedTap<float>>& plan, unsigned zero) : plan_(plan), zero_(zero) {
  }

  // Before the first step.
  template <typename Step>
  RESNET_CUDA_BODY void begin(const Step& step) {
    read_corners(step, 0);
    load(step, 0, pack_[0]);
    read_corners(step, kBurst);
  }

  // The samples of `here`. `next` is the step that follows, whose plan must be set; after the last one it is any step.
  template <typename Step>
  RESNET_CUDA_BODY void sample(const Step& here, const Step& next) {
    static_assert(Step::kCount % (2 * kBurst) == 0, "each burst of a step always has the same registers");
#pragma unroll
    for (int first = 0; first < Step::kCount; first += kBurst) {
      const Burst& blended = pack_[first / kBurst % 2];
      const int loaded = first + kBurst;
      const int read = first + 2 * kBurst;
      device::end_basic_block(arrived(blended));
      const bool below = corner_[0][0] < -1;
      if (loaded < Step::kCount) {
        load(here, loaded, pack_[loaded / kBurst % 2]);
      } else {
        load(next, 0, pack_[0]);
      }
      if (read < Step::kCount) {
        read_corners(here, read);
      } else {
        read_corners(next, read - Step::kCount);
      }
      device::end_basic_block(below);
      blend(here, first, blended);
    }
  }

 private:
  using Burst = Pack<T, N>[kBurst][4];

  // False, after `burst` has arrived and the one before it is blended.
  RESNET_CUDA_BODY bool arrived(const Burst& burst) const {
    return (first_word(burst[kBurst - 1][3]) & sample_ & zero_) != 0;
  }

  // Where the burst lies that is loaded next.
  template <typename Step>
  RESNET_CUDA_BODY void read_corners(const Step& step, int first) {
#pragma unroll
    for (int i = 0; i < kBurst; ++i) {
      const PlannedTap<float> planned = plan_.get(step.planned(first + i));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        corner_[i][j] = planned.corner[j];
      }
    }
  }

  template <typename Step>
  RESNET_CUDA_BODY void load(const Step& step, int first, Burst& burst) const {
#pragma unroll
    for (int i = 0; i < kBurst; ++i) {
      load_corners(step.source(first + i), corner_[i], burst[i]);
    }
  }

  template <typename Step>
  RESNET_CUDA_BODY void blend(const Step& step, int first, const Burst& burst) {
#pragma unroll
    for (int i = 0; i < kBurst; ++i) {
      const Pack<T, N> sample = blended<T>(plan_.get(step.planned(first + i)).weight, burst[i]);
      sample_ = first_word(sample);
      device::Shared<Pack<T, N>>(step.place(first + i), 1).set(0, sample);
    }
  }

  const device::Shared<PlannedTap<float>> plan_;
  const unsigned zero_;
  unsigned sample_ = 0;    // of the last row
  int corner_[kBurst][4];  // in packs from the source
  Burst pack_[2];
};

}  // namespace resnet_cuda
