// A pass of FrozenBatchNorm over channels-last memory: element i belongs to channel i % C.
#pragma once

#include "common/fast_division.h"
#include "frozen_bn/cuda_grid.h"
#include "frozen_bn/cuda_passes.cuh"
#include "frozen_bn/frozen_bn.h"

namespace resnet_cuda {

// Packs of N elements of the flat tensor, whatever C is. A thread's packs lie a multiple of C elements apart, so that
// all of them have the same N channels, whose constants stay in registers.
template <typename Pass, int N>
struct FrozenBnChannelsLast {
  static constexpr int kThreads = frozen_bn_cuda::kThreads;
  static_assert((N & (N - 1)) == 0 && N <= kThreads, "channels_last_body's period; one thread per element of the tail");
  static constexpr int kInFlight = frozen_bn_cuda::kInFlight;
  using T = typename Pass::Element;
  using Constant = typename Pass::Constant;

  Pass pass;
  FastDivision channels;
  int64_t packs;           // whole packs
  int64_t stride;          // in packs, from one pack of a thread to its next
  int64_t blocks;          // kThreads * blocks >= stride; threads from `stride` on have nothing to do
  int tail;                // elements after the last whole pack, one thread for each
  bool aligned_constants;  // a pack's channels are consecutive, their constants aligned to 16 bytes

  RESNET_CUDA_BODY void operator()() const {
    const int64_t first = device::block() * kThreads + device::thread();
    pass.keep_scale(first, blocks * kThreads, channels.divisor());
    if (first < stride && first < packs) {
      Constant constant[N];
      constants_of(first, constant);
      for (int64_t pack = first; pack < packs; pack += kInFlight * stride) {
        visit(pack, constant);
      }
    }
    if (first < tail) {
      const int64_t index = packs * N + first;
      PackWord<T, 1> element[Pass::kReads];
      pass.read(index, element);
      const Constant constant = pass.constant(channels.remainder(index));
      pass.write(index, element, [&](int) { return constant; });
    }
  }

 private:
  RESNET_CUDA_BODY void constants_of(int64_t pack, Constant (&constant)[N]) const {
    int64_t channel = channels.remainder(pack * N);
    if (aligned_constants) {
      pass.constants(channel, constant);
      return;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = pass.constant(channel);
      channel = channel + 1 == channels.divisor() ? 0 : channel + 1;
    }
  }

  // Up to kInFlight packs, `first`, first + stride, …: all are loaded before the first is used.
  RESNET_CUDA_BODY void visit(int64_t first, const Constant (&constant)[N]) const {
    PackWord<T, N> pack[kInFlight][Pass::kReads];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        pass.read((first + i * stride) * N, pack[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        pass.write((first + i * stride) * N, pack[i], [&](int element) { return constant[element]; });
      }
    }
  }
};

template <int N, typename Pass>
FrozenBnChannelsLast<Pass, N>
channels_last_body(const FrozenBnLayout& layout, const Pass& pass, bool aligned_constants, int multiprocessors) {
  constexpr int64_t kThreads = frozen_bn_cuda::kThreads;
  // period = C / gcd(C, N) packs, after which channels repeat; stride is rounded down to a multiple of it, at least
  // one.
  int64_t period = layout.channels;
  for (int common = N; common > 1 && period % 2 == 0; common /= 2) {
    period /= 2;
  }
  const int64_t packs = layout.elements / N;
  int64_t blocks = frozen_bn_cuda::blocks_for(packs, multiprocessors);
  int64_t stride = blocks * kThreads;
  if (stride < packs) {  // threads have more than one pack
    stride = stride < period ? period : stride / period * period;
    blocks = ceil_div(stride, kThreads);
  }
  const bool neighbours = layout.channels % N == 0;
  return {
      pass,
      FastDivision(layout.channels),
      packs,
      stride,
      blocks,
      static_cast<int>(layout.elements % N),
      neighbours && aligned_constants};
}

}  // namespace resnet_cuda
