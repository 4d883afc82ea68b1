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
// pack lies in one plane or in two. All other sizes take N = 1 (contiguous_packs_fit).
template <typename Pass, int N>
struct FrozenBnContiguous {
  static constexpr int kThreads = frozen_bn_cuda::kThreads;
  static_assert(N <= kThreads, "one thread per element of the tail");
  static constexpr int kInFlight = frozen_bn_cuda::kInFlight;
  using T = typename Pass::Element;
  using Constant = typename Pass::Constant;
  using Index = std::conditional_t<N == 1, int64_t, int32_t>;
  using Position = PlanePosition<Index>;

  Pass pass;
  FastDivision channel_count;
  FastDivision plane_size;
  Position step;   // from one pack of a thread to its next
  int64_t packs;   // whole packs
  int64_t stride;  // in packs, the number of threads
  int tail;        // elements after the last whole pack, one thread for each

  RESNET_CUDA_BODY void operator()() const {
    const int64_t first = device::block() * kThreads + device::thread();
    pass.keep_scale(first, stride, channel_count.divisor());
    if (first < packs) {
      Position position = position_of(first * N);
      for (int64_t pack = first; pack < packs; pack += kInFlight * stride) {
        position = visit(pack, position);
      }
    }
    if (first < tail) {
      const int64_t index = packs * N + first;
      PackWord<T, 1> element[Pass::kReads];
      pass.read(index, element);
      const Constant constant = pass.constant(position_of(index).channel);
      pass.write(index, element, [&](int) { return constant; });
    }
  }

 private:
  RESNET_CUDA_BODY Index channels() const {
    return static_cast<Index>(channel_count.divisor());
  }
  RESNET_CUDA_BODY Index plane() const {
    return static_cast<Index>(plane_size.divisor());
  }
  RESNET_CUDA_BODY Position position_of(int64_t index) const {
    const int64_t planes = plane_size.quotient(index);
    return {
        static_cast<Index>(channel_count.remainder(planes)), static_cast<Index>(index - planes * plane_size.divisor())};
  }

  // Up to kInFlight packs, `first`, first + stride, …: all are loaded before the first is used.
  RESNET_CUDA_BODY Position visit(int64_t first, Position position) const {
    PackWord<T, N> pack[kInFlight][Pass::kReads];
    Position start[kInFlight];
    Constant constant[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      start[i] = position;
      if (first + i * stride < packs) {
        pass.read((first + i * stride) * N, pack[i]);
        constant[i] = pass.constant(position.channel);
      }
      position = position.plus(step, channels(), plane());
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        const int64_t begin = (first + i * stride) * N;
        const Index remaining = plane() - start[i].within;  // elements of this plane from the pack's first on
        if (N == 1 || remaining >= N) {
          pass.write(begin, pack[i], [&](int) { return constant[i]; });
        } else {
          const Index next = start[i].channel + 1;
          const Constant after = pass.constant(next == channels() ? 0 : next);
          pass.write(begin, pack[i], [&](int element) { return element < remaining ? constant[i] : after; });
        }
      }
    }
    return position;
  }
};

// Whether packs of N elements lie in one plane or two, of sizes that 32 bits hold.
template <int N>
bool contiguous_packs_fit(const FrozenBnLayout& layout) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return layout.plane >= N && layout.plane < kMost && layout.channels < kMost;
}

template <int N, typename Pass>
FrozenBnContiguous<Pass, N> contiguous_body(const FrozenBnLayout& layout, const Pass& pass, int64_t blocks) {
  using Body = FrozenBnContiguous<Pass, N>;
  using Index = typename Body::Index;
  const int64_t stride = blocks * Body::kThreads;
  const int64_t step = stride * N;
  return {
      pass,
      FastDivision(layout.channels),
      FastDivision(layout.plane),
      {static_cast<Index>(step / layout.plane % layout.channels), static_cast<Index>(step % layout.plane)},
      layout.elements / N,
      stride,
      static_cast<int>(layout.elements % N)};
}

}  // namespace resnet_cuda
