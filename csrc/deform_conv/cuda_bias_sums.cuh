// The gradient of the bias: the sum of the output's gradient over all pixels of the batch. torch's own reduction takes
// up to 138 MB of scratch memory for it on an H200.
#pragma once

#include <algorithm>

#include "common/launch.cuh"
#include "common/pack.cuh"
#include "common/tensors.h"

namespace resnet_cuda {

// Sums rows [row_count, packs * N] into one partial sum per block, of a contiguous part of the rows each. A thread has
// N channels, and shares their rows with the threads that have the same ones.
template <typename T, typename Real, int N>
struct SumRows {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes = kThreads * N * static_cast<int>(sizeof(Real));

  const T* rows;
  Real* partial;  // [blocks][packs * N]
  int64_t row_count;
  int packs;
  bool first;  // partial sums are written, else added to

  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<Real> sums(0, kThreads * N);
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
        sums.set(device::thread() * N + j, sum[j]);
      }
      RESNET_CUDA_SYNC_BLOCK();
      for (int i = device::thread(); i < width * N; i += kThreads) {
        Real total = Real(0);
        for (int other = 0; other < sharers; ++other) {
          total += sums.get(other * width * N + i);
        }
        Real* at = partial + device::block() * channels + first_pack * N + i;
        *at = first ? total : *at + total;
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }
};

// Index: channel. Sums the partial sums in their order.
template <typename T, typename Real>
struct FinishBiasGradient {
  const Real* partial;  // [count][channels]
  T* gradient;
  int count;
  int64_t channels;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    Real sum = Real(0);
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      sum += partial[i * channels + index];
    }
    gradient[index] = static_cast<T>(sum);
  }
};

template <typename T, typename Real>
class BiasSums {
 public:
  BiasSums(const Launcher& launcher, const Tensor& beside, ScalarType real, int64_t channels)
      : launcher_(launcher),
        channels_(channels),
        blocks_(launcher.multiprocessors()),
        partial_(empty_beside(beside, {blocks_ * channels}, real)) {
  }

  // `rows` [row_count, channels] of the next images.
  void add(const T* rows, int64_t row_count) {
    constexpr int kWide = kPackBytes / static_cast<int>(sizeof(T));
    if (channels_ % kWide == 0 && reinterpret_cast<uintptr_t>(rows) % kPackBytes == 0) {
      launch<kWide>(rows, row_count);
    } else {
      launch<1>(rows, row_count);
    }
    first_ = false;
  }

  // Writes `gradient`, [channels].
  void finish(const Tensor& gradient) const {
    launcher_.run(
        channels_,
        FinishBiasGradient<T, Real>{
            data(), static_cast<T*>(gradient.mutable_data_ptr()), static_cast<int>(blocks_), channels_});
  }

 private:
  template <int N>
  void launch(const T* rows, int64_t row_count) const {
    launcher_.launch(blocks_, SumRows<T, Real, N>{rows, data(), row_count, static_cast<int>(channels_ / N), first_});
  }

  Real* data() const {
    return static_cast<Real*>(partial_.mutable_data_ptr());
  }

  const Launcher& launcher_;
  int64_t channels_;
  int64_t blocks_;
  Tensor partial_;
  bool first_ = true;
};

}  // namespace resnet_cuda
