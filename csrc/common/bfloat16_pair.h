// Pairs of bfloat16 in 32-bit words: what AVX512-BF16's dot product multiplies.
#pragma once

#include "common/vec_pair.h"
#include "common/vec_partial.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// The first of the two is the lower half, as in memory. It may lie in memory that was written as float.
struct __attribute__((may_alias)) BFloat16Pair {
  uint32_t bits;
};

template <>
struct VecOf<BFloat16Pair> {
  typedef FloatBits type;
  static constexpr int lanes = kLanes<float>;
};

RESNET_CUDA_INLINE FloatBits load(const BFloat16Pair* source) {
  FloatBits words;
  memcpy(&words, source, sizeof(words));
  return words;
}
RESNET_CUDA_INLINE void store(FloatBits words, BFloat16Pair* target) {
  memcpy(target, &words, sizeof(words));
}

#if defined(__AVX512BF16__)

// sum += left.first * row.first + left.second * row.second, lane by lane. Products of two bfloat16 are exact in
// float32; the instruction rounds each of the two sums to nearest, takes subnormal operands as 0 and flushes subnormal
// sums to 0, whatever the rounding mode of the thread.
RESNET_CUDA_INLINE void add_product(BFloat16Pair left, FloatBits row, Vec<float>& sum) {
  __m512i left_in_all_lanes = _mm512_set1_epi32(static_cast<int>(left.bits));
#if defined(__clang__) && (__clang_major__ == 16 || __clang_major__ == 17)
  asm("" : "+v"(left_in_all_lanes));  // their VectorCombine pass crashes where a broadcast is cast to bfloat16
#endif
  sum = reinterpret_cast<Vec<float>>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(left_in_all_lanes), reinterpret_cast<__m512bh>(row)));
}

// The first `count` elements, fewer than two vectors have; the others are 0. Nothing beyond them is read.
RESNET_CUDA_INLINE VecPair<float> load_pair_partial(const BFloat16* source, int64_t count) {
  return split_bfloat16(reinterpret_cast<FloatBits>(_mm512_maskz_loadu_epi16(first_lanes(count), source)));
}

RESNET_CUDA_INLINE void store_pair(VecPair<float> value, BFloat16Pair* target) {
  store(narrow_pair(value, static_cast<const BFloat16*>(nullptr)), target);
}

// The first `count` elements, rounded up to whole words: an odd element's partner is stored as 0, whatever its value.
RESNET_CUDA_INLINE void store_pair_partial(VecPair<float> value, BFloat16Pair* target, int64_t count) {
  const auto words = reinterpret_cast<__m512i>(narrow_pair(value, static_cast<const BFloat16*>(nullptr)));
  _mm512_mask_storeu_epi32(
      target,
      static_cast<__mmask16>(first_lanes(ceil_div(count, 2))),
      _mm512_maskz_mov_epi16(first_lanes(count), words));
}
// The same of one vector of adjacent elements.
RESNET_CUDA_INLINE void store_partial(Vec<float> value, BFloat16Pair* target, int64_t count) {
  const auto words = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
  _mm256_mask_storeu_epi32(
      target,
      static_cast<__mmask8>(first_lanes(ceil_div(count, 2))),
      _mm256_maskz_mov_epi16(static_cast<__mmask16>(first_lanes(count)), words));
}

// Adjacent numbers, two vectors of them, rounded to pairs.
RESNET_CUDA_INLINE FloatBits adjacent_pairs(Vec<float> first_half, Vec<float> second_half) {
  return reinterpret_cast<FloatBits>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second_half), reinterpret_cast<__m512>(first_half)));
}

#endif

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
