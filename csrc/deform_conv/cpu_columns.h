// The element type of the matrix products' operands: a real number or, for bfloat16 where the instruction set has dot
// products of pairs, a pair. It is a pair of channels in the forward, of output channels in the product that gives the
// columns' gradient, and of pixels in the product that gives the weight's gradient.
#pragma once

#include <type_traits>

#include "common/bfloat16_pair.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

#if defined(__AVX512BF16__)
constexpr bool kMultipliesPairs = true;
#else
constexpr bool kMultipliesPairs = false;
#endif

// For input of type T.
template <typename T>
using ColumnOf = std::conditional_t<kMultipliesPairs && std::is_same_v<T, BFloat16>, BFloat16Pair, RealOf<T>>;

// Adjacent channels in a column: the numbers in a Column.
template <typename Column>
constexpr int64_t kColumnChannels = std::is_same_v<Column, BFloat16Pair> ? 2 : 1;

// Channels in a vector of columns.
template <typename Column>
constexpr int64_t kVectorChannels = kLanes<Column> * kColumnChannels<Column>;

// Samples a vector of columns of one tap: the channels from `channel` on.
template <typename T, typename Real, typename Extent>
RESNET_CUDA_INLINE void
sample_vector(const T* const (&corner)[4], const Real (&weight)[4], int64_t channel, Extent extent, Real* target) {
  store(
      weight[0] * load(corner[0] + channel, extent) + weight[1] * load(corner[1] + channel, extent) +
          weight[2] * load(corner[2] + channel, extent) + weight[3] * load(corner[3] + channel, extent),
      target,
      extent);
}

// A column of weights, of which `count` channels exist and are `stride` apart.
template <typename T, typename Real>
RESNET_CUDA_INLINE void put_weights(const T* source, int64_t, int64_t, Real* column) {
  *column = to_real(*source);
}

#if defined(__AVX512BF16__)

// Pairs are sampled in float32 and rounded once. load_corner(i) gives corner i's channels.
template <typename LoadCorner>
RESNET_CUDA_INLINE VecPair<float> sample_pair(const float (&weight)[4], const LoadCorner& load_corner) {
  VecPair<float> sum{};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const VecPair<float> value = load_corner(i);
    sum.first += weight[i] * value.first;
    sum.second += weight[i] * value.second;
  }
  return sum;
}

RESNET_CUDA_INLINE void sample_vector(
    const BFloat16* const (&corner)[4],
    const float (&weight)[4],
    int64_t channel,
    FullVector,
    BFloat16Pair* target) {
  const auto load_corner = [&](int i) __attribute__((always_inline)) { return load_pair(corner[i] + channel); };
  store_pair(sample_pair(weight, load_corner), target);
}

RESNET_CUDA_INLINE void sample_vector(
    const BFloat16* const (&corner)[4],
    const float (&weight)[4],
    int64_t channel,
    PartialVector rest,
    BFloat16Pair* target) {
  // Grouped convolutions consist of short tails, for which half as wide instructions are faster.
  if (rest.count < kLanes<float>) {
    Vec<float> sum = weight[0] * load_partial(corner[0] + channel, rest.count);
    for (int i = 1; i < 4; ++i) {
      sum += weight[i] * load_partial(corner[i] + channel, rest.count);
    }
    store_partial(sum, target, rest.count);
    return;
  }
  const auto load_corner = [&](int i) __attribute__((always_inline)) {
    return load_pair_partial(corner[i] + channel, rest.count);
  };
  store_pair_partial(sample_pair(weight, load_corner), target, rest.count);
}

RESNET_CUDA_INLINE void put_weights(const BFloat16* source, int64_t stride, int64_t count, BFloat16Pair* column) {
  const uint32_t second = count > 1 ? source[stride].bits : 0;
  column->bits = source->bits | second << 16;
}

#endif

// Where columns are pairs, replaces the rows of a matrix, two by two, by rows of pairs, in place: half as many, as far
// apart. A last row without partner gets zeros. Reads and writes whole vectors.
template <typename Column>
RESNET_CUDA_INLINE void pair_rows(RealOf<Column>* matrix, int64_t rows, int64_t row_stride, int64_t width) {
  if constexpr (kColumnChannels<Column> == 2) {
    for (int64_t row = 0; row < rows; row += 2) {
      const float* source = matrix + row * row_stride;
      auto* target = reinterpret_cast<Column*>(matrix + row / 2 * row_stride);
      for (int64_t i = 0; i < width; i += kLanes<float>) {
        const Vec<float> first = load(source + i);
        const Vec<float> second = row + 1 < rows ? load(source + row_stride + i) : Vec<float>{};
        store(narrow_pair({first, second}, static_cast<const BFloat16*>(nullptr)), target + i);
      }
    }
  }
}

// Where columns are pairs, replaces `count` adjacent numbers by pairs of them, in place; a last one without partner
// gets 0.
template <typename Column>
RESNET_CUDA_INLINE void pair_elements(RealOf<Column>* numbers, int64_t count) {
  if constexpr (kColumnChannels<Column> == 2) {
    for (int64_t i = 0; i < count; i += kVectorChannels<Column>) {
      const int64_t first_count = smaller(kLanes<float>, count - i);
      const int64_t second_count = smaller(kLanes<float>, count - i - first_count);
      const FloatBits pairs =
          adjacent_pairs(load_up_to(numbers + i, first_count), load_up_to(numbers + i + kLanes<float>, second_count));
      store_up_to(
          reinterpret_cast<Vec<float>>(pairs), numbers + i / 2, ceil_div(first_count + second_count, int64_t{2}));
    }
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
