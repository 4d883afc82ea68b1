// The gradient of the bias: the sum of the output's gradient over all pixels of the batch. torch's own reduction takes
// up to 138 MB of scratch memory for it on an H200. Each thread sums its rows in the compute type; partial sums of
// threads and thread blocks are added in double.
#pragma once

#include <algorithm>

#include "common/launch.cuh"
#include "common/pack.cuh"
#include "common/storage_types.h"
#include "common/tensors.h"
#include "deform_conv/cuda_workspace.h"

namespace resnet_cuda {

// Sums rows [row_count, packs * N] into one partial sum per block, of a contiguous part of the rows each. A thread has
// N channels, and shares their rows with the threads that have the same ones.
template <typename T, typename Real, int N>
struct SumRows {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes = kThreads * N * static_cast<int>(sizeof(double));

  const T* rows;
  double* partial;  // [blocks][packs * N]
  int64_t row_count;
  int packs;
  bool first;  // partial sums are written, else added to

  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<double> sums(0, kThreads * N);
    const int64_t begin = row_count * device::block() / device::blocks();
    const int64_t end = row_count * (device::block() + 1) / device::blocks();
    const int64_t channels = static_cast<int64_t>(packs) * N;
    for (int first_pack = 0; first_pack < packs; first_pack += kThreads) {
      const int width = packs - first_pack < kThreads ? packs - first_pack : kThreads;
      const int sharers = kThreads / width;
      const int sharer = device::thread() / width;
      const int pack = first_pack + device::thread() - sharer * width;
      Real sum[N] = {};
      if (sharer < sharers) {
#pragma unroll 4
        for (int64_t row = begin + sharer; row < end; row += sharers) {
          Real value[N];
          unpack(load_constant_pack<N>(rows + row * channels + static_cast<int64_t>(pack) * N), value);
#pragma unroll
          for (int j = 0; j < N; ++j) {
            sum[j] += value[j];
          }
        }
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sums.set(device::thread() * N + j, static_cast<double>(sum[j]));
      }
      RESNET_CUDA_SYNC_BLOCK();
      for (int i = device::thread(); i < width * N; i += kThreads) {
        double total = 0;
        for (int other = 0; other < sharers; ++other) {
          total += sums.get(other * width * N + i);
        }
        double* at = partial + device::block() * channels + first_pack * N + i;
        *at = first ? total : *at + total;
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }
};

// Index: channel. Sums the partial sums in a fixed order.
template <typename T>
struct FinishBiasGradient {
  const double* partial;  // [count][channels]
  T* gradient;
  int count;
  int64_t channels;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    // Several sums side by side, then a tree: rounding adds up over an eighth of the partial sums.
    constexpr int kSums = 8;
    double sum[kSums] = {};
#pragma unroll 1
    for (int first = 0; first < count; first += kSums) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        sum[i] += first + i < count ? partial[(first + i) * channels + index] : 0.0;
      }
    }
#pragma unroll
    for (int half = kSums / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) {
        sum[i] += sum[i + half];
      }
    }
    gradient[index] = static_cast<T>(static_cast<RealOf<T>>(sum[0]));
  }
};

template <typename T, typename Real>
class BiasSums {
 public:
  static constexpr int kMostBlocks = 128;  // about as many as a large GPU has multiprocessors

  static int64_t bytes(int64_t channels, int64_t workspace = kWorkspaceBytes) {
    return blocks(channels, workspace) * channels * static_cast<int64_t>(sizeof(double));
  }

  BiasSums(const Launcher& launcher, const Tensor& beside, int64_t channels)
      : launcher_(launcher),
        channels_(channels),
        blocks_(blocks(channels)),
        partial_(empty_beside(beside, {blocks_ * channels}, ScalarType::Double)) {
  }

  // `rows` [row_count, channels] of the next images.
  void add(const T* rows, int64_t row_count) {
    constexpr int kWide = kPackBytes / static_cast<int>(sizeof(T));
    if (channels_ % kWide == 0 && is_aligned(rows, kPackBytes)) {
      launch<kWide>(rows, row_count);
    } else {
      launch<1>(rows, row_count);
    }
    first_ = false;
  }

  // Writes `gradient`, [channels].
  void finish(const Tensor& gradient) const {
    launcher_.run(
        channels_, FinishBiasGradient<T>{data(), static_cast<T*>(gradient.mutable_data_ptr()), blocks_, channels_});
  }

 private:
  template <int N>
  void launch(const T* rows, int64_t row_count) const {
    launcher_.launch(blocks_, SumRows<T, Real, N>{rows, data(), row_count, static_cast<int>(channels_ / N), first_});
  }

  // Whatever the GPU, so that the sums are the same on all; fewer where their partial sums took more than a 64th of the
  // workspace.
  static int blocks(int64_t channels, int64_t workspace = kWorkspaceBytes) {
    const int64_t fit = workspace / 64 / (channels * static_cast<int64_t>(sizeof(double)));
    return static_cast<int>(std::clamp<int64_t>(fit, 1, kMostBlocks));
  }

  double* data() const {
    return static_cast<double*>(partial_.mutable_data_ptr());
  }

  const Launcher& launcher_;
  int64_t channels_;
  int blocks_;
  Tensor partial_;
  bool first_ = true;
};

}  // namespace resnet_cuda
