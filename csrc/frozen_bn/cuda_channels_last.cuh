// A pass of FrozenBatchNorm over channels-last memory: element i belongs to channel i % C.
#pragma once

#include <type_traits>

#include "common/fast_division.h"
#include "frozen_bn/cuda_grid.h"
#include "frozen_bn/cuda_passes.cuh"
#include "frozen_bn/frozen_bn.h"

namespace resnet_cuda {

// Packs of N elements of the flat tensor, for any C. A thread's packs lie a multiple of C elements apart, so all
// have the same N channels, whose constants stay in registers. The first packs are loaded before the constants, so
// that their latencies overlap.
template <typename Pass, int N>
struct FrozenBnChannelsLast {
  static constexpr int kThreads = frozen_bn_cuda::kThreads;
  static_assert((N & (N - 1)) == 0 && N <= kThreads, "channels_last_body's period; one thread per element of the tail");
  static constexpr int kInFlight = frozen_bn_cuda::kInFlight;
  using T = typename Pass::Element;
  using Constant = typename Pass::Constant;
  using Round = FrozenBnRound<Pass, N, kInFlight>;
  using Index = std::conditional_t<N == 1, int64_t, int32_t>;
  using Division = std::conditional_t<N == 1, FastDivision, FastDivision32>;

  Pass pass;
  Division channels;
  Index packs;             // whole packs
  Index stride;            // in packs, from one pack of a thread to its next
  Index working;           // threads that have a pack; at most a stride
  int64_t blocks;          // kThreads * blocks >= stride
  int tail;                // elements after the last whole pack, one thread for each
  int tail_channel;        // of the first of them
  bool aligned_constants;  // a pack's channels are consecutive, their constants aligned to 16 bytes

  RESNET_CUDA_BODY void operator()() const {
    const Index first = static_cast<Index>(device::block()) * kThreads + device::thread();
    if (first < working) {
      Round round;
      round.read(pass, first, stride, packs);
      Constant constant[N];
      constants_of(first, constant);
      Index pack = first;
      while (true) {
        write(round, pack, constant);
        pack += kInFlight * stride;
        if (pack >= packs) {
          break;
        }
        round.read(pass, pack, stride, packs);
      }
    }
    if (N > 1 && first < tail) {
      const int64_t index = static_cast<int64_t>(packs) * N + first;
      PackWord<T, 1> element[Pass::kReads];
      pass.read(index, element);
      Constant constant[1];
      pass.constants_of({channels.remainder(tail_channel + first)}, constant);
      pass.write(index, element, [&](int) { return constant[0]; });
    }
    pass.keep_scale(first, blocks * kThreads, channels.divisor());
  }

 private:
  RESNET_CUDA_BODY void constants_of(Index pack, Constant (&constant)[N]) const {
    const Index channel = channels.remainder(pack * N);
    if (aligned_constants) {
      constexpr int kPiece = N < Pass::kChannelsAtOnce ? N : Pass::kChannelsAtOnce;
#pragma unroll
      for (int i = 0; i < N; i += kPiece) {
        Constant piece[kPiece];
        pass.constants(channel + i, piece);
        keep(i, piece, constant);
      }
    } else {
      constants_singly(channel, constant);
    }
  }

  // For half as many channels at once, since each takes an address of its own.
  RESNET_CUDA_BODY void constants_singly(Index channel, Constant (&constant)[N]) const {
    constexpr int kPiece = N < Pass::kChannelsAtOnce / 2 ? N : Pass::kChannelsAtOnce / 2;
#pragma unroll
    for (int i = 0; i < N; i += kPiece) {
      Index channel_of[kPiece];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        channel_of[j] = channel;
        channel = channel + 1 == channels.divisor() ? 0 : channel + 1;
      }
      Constant piece[kPiece];
      pass.constants_of(channel_of, piece);
      keep(i, piece, constant);
    }
  }

  template <int kPiece>
  RESNET_CUDA_BODY static void keep(int begin, const Constant (&piece)[kPiece], Constant (&constant)[N]) {
#pragma unroll
    for (int j = 0; j < kPiece; ++j) {
      constant[begin + j] = piece[j];
    }
  }

  RESNET_CUDA_BODY void write(const Round& round, Index first, const Constant (&constant)[N]) const {
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        const int64_t begin = static_cast<int64_t>(first + i * stride) * N;
        pass.write(begin, round.pack[i], [&](int element) { return constant[element]; });
      }
    }
  }
};

template <int N, typename Pass>
FrozenBnChannelsLast<Pass, N>
channels_last_body(const FrozenBnLayout& layout, const Pass& pass, bool aligned_constants, int multiprocessors) {
  using Body = FrozenBnChannelsLast<Pass, N>;
  using Index = typename Body::Index;
  constexpr int64_t kThreads = frozen_bn_cuda::kThreads;
  // period = C / gcd(C, N) packs, after which channels repeat; stride is rounded down to a multiple of it, at least
  // one.
  int64_t period = layout.channels;
  for (int common = N; common > 1 && period % 2 == 0; common /= 2) {
    period /= 2;
  }
  const int64_t packs = layout.elements / N;
  int64_t blocks = frozen_bn_cuda::blocks_for(packs, Body::kInFlight, multiprocessors);
  int64_t stride = blocks * kThreads;
  if (stride < packs) {  // threads have more than one pack
    stride = stride < period ? period : stride / period * period;
    blocks = ceil_div(stride, kThreads);
  }
  const bool neighbours = layout.channels % N == 0;
  return {
      pass,
      typename Body::Division(static_cast<Index>(layout.channels)),
      static_cast<Index>(packs),
      static_cast<Index>(stride),
      static_cast<Index>(smaller(stride, packs)),
      blocks,
      static_cast<int>(layout.elements % N),
      static_cast<int>(packs * N % layout.channels),
      neighbours && aligned_constants};
}

}  // namespace resnet_cuda
