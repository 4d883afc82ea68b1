// How a pass over an activation goes through memory. A pass has
//   constants(read)           what it needs of a channel, each of its arrays read by read(array),
//   two(i, constants)         the elements from i on that fill two vectors,
//   part(i, part, constants)  those of one vector (Whole) or fewer (First),
//   target()                  where its result begins, and `stream`, whether two() stores past the caches.
#pragma once

#include "common/vec.h"
#include "common/vec_partial.h"
#include "common/vec_two.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// Elements [i, end), fewer than two vectors.
template <typename Pass, typename ConstantsOf>
RESNET_CUDA_INLINE void traverse_rest(const Pass& pass, int64_t i, int64_t end, const ConstantsOf& constants_of) {
  constexpr int64_t kLanesOfPass = kLanes<typename Pass::Real>;
  if (i + kLanesOfPass <= end) {
    pass.part(i, Whole{}, constants_of(i, Whole{}));
    i += kLanesOfPass;
  }
  if (i < end) {
    const First first{end - i};
    pass.part(i, first, constants_of(i, first));
  }
}

// Elements of a row to go through before the double vectors begin at a cache line. Stores past the caches need that;
// others are faster where they do not cross lines, if the row is long enough.
template <typename T>
RESNET_CUDA_INLINE int64_t head_of_row(const T* target, int64_t count, bool stream) {
  return stream || count >= 16 * kLanes<RealOf<T>> ? before_first_line(target, count) : 0;
}

// Elements [begin, end) of one channel, which lie together.
template <typename Pass>
RESNET_CUDA_INLINE void traverse_row(const Pass& pass, int64_t begin, int64_t end, int64_t channel) {
  using Real = typename Pass::Real;
  const auto one = pass.constants([&](const Real* all) { return Vec<Real>{} + all[channel]; });
  const auto two = pass.constants([&](const Real* all) {
    const Vec<Real> same = Vec<Real>{} + all[channel];
    return Two<Real>{same, same};
  });
  const auto constants_of = [&](int64_t, auto) { return one; };

  int64_t i = begin;
  const int64_t lined_up = begin + head_of_row(pass.target() + begin, end - begin, pass.stream);
  for (; i + 2 * kLanes<Real> <= lined_up; i += kLanes<Real>) {
    pass.part(i, Whole{}, one);
  }
  traverse_rest(pass, i, lined_up, constants_of);
  i = lined_up;
#pragma GCC unroll 2
  for (; i + 2 * kLanes<Real> <= end; i += 2 * kLanes<Real>) {
    pass.two(i, two);
  }
  traverse_rest(pass, i, end, constants_of);
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

// [begin, end) is a whole number of pixels. Constants are as order_constants leaves them.
template <typename Pass>
RESNET_CUDA_INLINE void traverse_channels_last(const Pass& pass, int64_t channels, int64_t begin, int64_t end) {
  using Real = typename Pass::Real;
  for (int64_t pixel = begin; pixel < end; pixel += channels) {
    int64_t channel = 0;
#pragma GCC unroll 2
    for (; channel + 2 * kLanes<Real> <= channels; channel += 2 * kLanes<Real>) {
      pass.two(pixel + channel, pass.constants([&](const Real* all) { return load_two(all + channel); }));
    }
    traverse_rest(pass, pixel + channel, pixel + channels, [&](int64_t i, auto part) {
      return pass.constants([&](const Real* all) { return load_part(all + (i - pixel), part); });
    });
  }
}

template <typename T>
void order_constants(const void* constants, int64_t channels, void* ordered) {
  using Real = RealOf<T>;
  const Real* source = static_cast<const Real*>(constants);
  Real* target = static_cast<Real*>(ordered);
  int64_t channel = 0;
  for (; channel + 2 * kLanes<Real> <= channels; channel += 2 * kLanes<Real>) {
    store_two(in_order_of(load_two(source + channel), static_cast<const T*>(nullptr)), target + channel);
  }
  for (; channel < channels; ++channel) {
    target[channel] = source[channel];
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
