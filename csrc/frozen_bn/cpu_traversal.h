// The loops of a pass over an activation, row by row. A row is one channel of one image if contiguous, one pixel in
// channels_last. It has a main loop over vector pairs and a tail; contiguous rows are peeled up to a cache line where
// that is faster.
//
// The template argument Pass has:
//   Real                          the type of its constants and arithmetic
//   constants(read)               a channel's constants: calls read(array) for each of its arrays
//   pair(i, constants)            processes the vector pair from element i on
//   vector(i, extent, constants)  processes one vector from element i on; extent is FullVector{} or a PartialVector
//   target()                      where its result begins
//   stream                        whether pair() uses streaming stores
#pragma once

#include "common/vec.h"
#include "common/vec_pair.h"
#include "common/vec_partial.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// The tail: elements [i, end), fewer than two vectors.
template <typename Pass, typename ConstantsOf>
RESNET_CUDA_INLINE void traverse_tail(const Pass& pass, int64_t i, int64_t end, const ConstantsOf& constants_of) {
  constexpr int64_t kLanesOfPass = kLanes<typename Pass::Real>;
  if (i + kLanesOfPass <= end) {
    pass.vector(i, FullVector{}, constants_of(i, FullVector{}));
    i += kLanesOfPass;
  }
  if (i < end) {
    const PartialVector rest{end - i};
    pass.vector(i, rest, constants_of(i, rest));
  }
}

// How many elements of a row to peel, so that the main loop's stores are aligned to a cache line. Streaming stores need
// the alignment; ordinary stores are faster where they do not cross lines, which pays in long rows.
template <typename T>
RESNET_CUDA_INLINE int64_t peeled_elements(const T* target, int64_t count, bool stream) {
  return stream || count >= 16 * kLanes<RealOf<T>> ? elements_before_line(target, count) : 0;
}

// Elements [begin, end) of one channel, which are adjacent.
template <typename Pass>
RESNET_CUDA_INLINE void traverse_row(const Pass& pass, int64_t begin, int64_t end, int64_t channel) {
  using Real = typename Pass::Real;
  const auto vector_constants = pass.constants([&](const Real* all) { return Vec<Real>{} + all[channel]; });
  const auto pair_constants = pass.constants([&](const Real* all) {
    const Vec<Real> same = Vec<Real>{} + all[channel];
    return VecPair<Real>{same, same};
  });
  const auto constants_of = [&](int64_t, auto) { return vector_constants; };

  int64_t i = begin;
  const int64_t aligned = begin + peeled_elements(pass.target() + begin, end - begin, pass.stream);
  // Vectors until fewer than two are left, which traverse_tail handles.
  for (; i + 2 * kLanes<Real> <= aligned; i += kLanes<Real>) {
    pass.vector(i, FullVector{}, vector_constants);
  }
  traverse_tail(pass, i, aligned, constants_of);
  i = aligned;
#pragma GCC unroll 2
  for (; i + 2 * kLanes<Real> <= end; i += 2 * kLanes<Real>) {
    pass.pair(i, pair_constants);
  }
  traverse_tail(pass, i, end, constants_of);
}

template <typename Pass>
RESNET_CUDA_INLINE void
traverse_contiguous(const Pass& pass, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  int64_t row = begin / plane;
  int64_t channel = row % channels;
  for (int64_t position = begin; position < end; ++row) {
    const int64_t row_end = smaller((row + 1) * plane, end);
    traverse_row(pass, position, row_end, channel);
    position = row_end;
    channel = channel + 1 == channels ? 0 : channel + 1;
  }
}

// [begin, end) is a whole number of pixels.
template <typename Pass>
RESNET_CUDA_INLINE void traverse_channels_last(const Pass& pass, int64_t channels, int64_t begin, int64_t end) {
  using Real = typename Pass::Real;
  for (int64_t pixel = begin; pixel < end; pixel += channels) {
    int64_t channel = 0;
#pragma GCC unroll 2
    for (; channel + 2 * kLanes<Real> <= channels; channel += 2 * kLanes<Real>) {
      pass.pair(pixel + channel, pass.constants([&](const Real* all) { return load_pair(all + channel); }));
    }
    traverse_tail(pass, pixel + channel, pixel + channels, [&](int64_t i, auto extent) {
      return pass.constants([&](const Real* all) { return load(all + (i - pixel), extent); });
    });
  }
}

// Copies constants into the order in which traverse_channels_last loads them: vector pairs deinterleaved, the tail
// unchanged.
template <typename T>
void deinterleave_constants(const void* constants, int64_t channels, void* result) {
  using Real = RealOf<T>;
  const Real* source = static_cast<const Real*>(constants);
  Real* target = static_cast<Real*>(result);
  int64_t channel = 0;
  for (; channel + 2 * kLanes<Real> <= channels; channel += 2 * kLanes<Real>) {
    store_pair(deinterleaved(load_pair(source + channel), static_cast<const T*>(nullptr)), target + channel);
  }
  for (; channel < channels; ++channel) {
    target[channel] = source[channel];
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
