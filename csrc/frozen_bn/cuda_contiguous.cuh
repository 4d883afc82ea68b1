// A pass of FrozenBatchNorm over contiguous memory: element i belongs to channel i / plane % C, plane = H*W.
#pragma once

#include <type_traits>

#include "common/fast_division.h"
#include "frozen_bn/cuda_grid.h"
#include "frozen_bn/cuda_passes.cuh"
#include "frozen_bn/frozen_bn.h"

namespace resnet_cuda {

// An element's channel and its index in that channel's plane. Equal steps need a division for the first one only.
template <typename Index>
struct PlanePosition {
  Index channel;
  Index within;

  // This position moved by `step`, which is less than `channels` and `plane` in its two parts.
  RESNET_CUDA_HOST_DEVICE PlanePosition plus(const PlanePosition& step, Index channels, Index plane) const {
    PlanePosition next = {channel + step.channel, within + step.within};
    if (next.within >= plane) {
      next.within -= plane;
      ++next.channel;
    }
    if (next.channel >= channels) {
      next.channel -= channels;
    }
    return next;
  }
};

// Packs of N elements of the flat tensor. Planes (25 x 42 in C5, 2100 bytes in bfloat16) need not begin at a pack, so a
// pack lies in one plane or in two. All other sizes take N = 1 (contiguous_packs_fit). Packs are loaded before their
// constants, so that their latencies overlap.
template <typename Pass, int N>
struct FrozenBnContiguous {
  static constexpr int kThreads = frozen_bn_cuda::kThreads;
  static_assert(N <= kThreads, "one thread per element of the tail");
  static constexpr int kInFlight = frozen_bn_cuda::in_flight_with_constants(Pass::kReads, sizeof(typename Pass::Real));
  using T = typename Pass::Element;
  using Constant = typename Pass::Constant;
  using Round = FrozenBnRound<Pass, N, kInFlight>;
  using Index = std::conditional_t<N == 1, int64_t, int32_t>;
  using Division = std::conditional_t<N == 1, FastDivision, FastDivision32>;
  using Position = PlanePosition<Index>;

  Pass pass;
  Division channel_count;
  Division plane_size;
  Position step;  // from one pack of a thread to its next
  Index packs;    // whole packs
  Index stride;   // in packs, the number of threads
  int64_t blocks;
  int tail;  // elements after the last whole pack, one thread for each

  RESNET_CUDA_BODY void operator()() const {
    const Index first = static_cast<Index>(device::block()) * kThreads + device::thread();
    if (first < packs) {
      Round round;
      round.read(pass, first, stride, packs);
      Position position = position_of(first * N);
      Index pack = first;
      while (true) {
        position = write(round, pack, position);
        pack += kInFlight * stride;
        if (pack >= packs) {
          break;
        }
        round.read(pass, pack, stride, packs);
      }
    }
    if (N > 1 && first < tail) {  // in the last plane, which has at least N elements
      const int64_t index = static_cast<int64_t>(packs) * N + first;
      PackWord<T, 1> element[Pass::kReads];
      pass.read(index, element);
      Constant constant[1];
      pass.constants_of({channels() - 1}, constant);
      pass.write(index, element, [&](int) { return constant[0]; });
    }
    pass.keep_scale(first, stride, channels());
  }

 private:
  RESNET_CUDA_BODY Index channels() const {
    return channel_count.divisor();
  }
  RESNET_CUDA_BODY Index plane() const {
    return plane_size.divisor();
  }
  RESNET_CUDA_BODY Position position_of(Index index) const {
    const Index planes = plane_size.quotient(index);
    return {channel_count.remainder(planes), index - planes * plane()};
  }

  // Gives the position of the next round.
  RESNET_CUDA_BODY Position write(const Round& round, Index first, Position position) const {
    Index channel[kInFlight];
    Index remaining[kInFlight];  // elements of the plane from the pack's first on
    Constant constant[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      channel[i] = position.channel;
      remaining[i] = plane() - position.within;
      position = position.plus(step, channels(), plane());
    }
    pass.constants_of(channel, constant);  // also of packs past the end, whose channels exist
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        const int64_t begin = static_cast<int64_t>(first + i * stride) * N;
        if (N == 1 || remaining[i] >= N) {
          pass.write(begin, round.pack[i], [&](int) { return constant[i]; });
        } else {
          const Index next = channel[i] + 1;
          Constant after[1];
          pass.constants_of({next == channels() ? 0 : next}, after);
          pass.write(
              begin, round.pack[i], [&](int element) { return element < remaining[i] ? constant[i] : after[0]; });
        }
      }
    }
    return position;
  }
};

// Whether packs of N elements lie in one plane or two, of a size that 32 bits hold.
template <int N>
bool contiguous_packs_fit(const FrozenBnLayout& layout) {
  return layout.plane >= N && layout.plane < int64_t{1} << 30;
}

template <int N, typename Pass>
FrozenBnContiguous<Pass, N> contiguous_body(const FrozenBnLayout& layout, const Pass& pass, int multiprocessors) {
  using Body = FrozenBnContiguous<Pass, N>;
  using Index = typename Body::Index;
  using Division = typename Body::Division;
  const int64_t packs = layout.elements / N;
  const int64_t blocks = frozen_bn_cuda::blocks_for(packs, Body::kInFlight, multiprocessors);
  const int64_t stride = blocks * Body::kThreads;
  const int64_t step = stride * N;
  return {
      pass,
      Division(static_cast<Index>(layout.channels)),
      Division(static_cast<Index>(layout.plane)),
      {static_cast<Index>(step / layout.plane % layout.channels), static_cast<Index>(step % layout.plane)},
      static_cast<Index>(packs),
      static_cast<Index>(stride),
      blocks,
      static_cast<int>(layout.elements % N)};
}

}  // namespace resnet_cuda
