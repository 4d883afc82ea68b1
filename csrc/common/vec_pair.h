// Two vectors at once, so that loads and stores of a 16-bit type are as wide as a register; and streaming
// (non-temporal) stores, which bypass the caches: a cache line that is overwritten whole need not be read first.
#pragma once

#include "common/cache_line.h"
#include "common/host_device.h"
#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// Two vectors of adjacent elements. Loaded from BFloat16 (the upper half of a float), `first` has the even elements and
// `second` the odd ones: a shift and a mask split a 32-bit word into two. For all other types they are the first and
// the second half.
template <typename Real>
struct VecPair {
  Vec<Real> first;
  Vec<Real> second;
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a word's lower half must be the even element");

template <typename T>
RESNET_CUDA_INLINE VecPair<RealOf<T>> load_pair(const T* source) {
  return {load(source), load(source + kLanes<RealOf<T>>)};
}
RESNET_CUDA_INLINE VecPair<float> split_bfloat16(FloatBits words) {
  return {reinterpret_cast<Vec<float>>(words << 16), reinterpret_cast<Vec<float>>(words & 0xffff0000u)};
}
RESNET_CUDA_INLINE VecPair<float> load_pair(const BFloat16* source) {
  FloatBits words;
  memcpy(&words, source, sizeof(words));
  return split_bfloat16(words);
}

// From halves to the order in which load_pair loads elements of T. The pointer only selects the overload.
template <typename T>
RESNET_CUDA_INLINE VecPair<RealOf<T>> deinterleaved(VecPair<RealOf<T>> halves, const T*) {
  return halves;
}
RESNET_CUDA_INLINE VecPair<float> deinterleaved(VecPair<float> halves, const BFloat16*) {
#if defined(__AVX512F__)
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512 lower = reinterpret_cast<__m512>(halves.first), upper = reinterpret_cast<__m512>(halves.second);
  return {
      reinterpret_cast<Vec<float>>(_mm512_permutex2var_ps(lower, even, upper)),
      reinterpret_cast<Vec<float>>(_mm512_permutex2var_ps(lower, odd, upper))};
#elif defined(__AVX2__)
  // The shuffle stays within 128-bit lanes; its quarters come out in the order 0 2 1 3.
  const __m256 lower = reinterpret_cast<__m256>(halves.first), upper = reinterpret_cast<__m256>(halves.second);
  const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(lower, upper, 0x88));
  const __m256d odd = _mm256_castps_pd(_mm256_shuffle_ps(lower, upper, 0xdd));
  return {
      reinterpret_cast<Vec<float>>(_mm256_permute4x64_pd(even, 0xd8)),
      reinterpret_cast<Vec<float>>(_mm256_permute4x64_pd(odd, 0xd8))};
#else
  const Vec<float> lower = halves.first, upper = halves.second;
  return {Vec<float>{lower[0], lower[2], upper[0], upper[2]}, Vec<float>{lower[1], lower[3], upper[1], upper[3]}};
#endif
}

// Rounded to a 16-bit type, in memory order. The pointer only selects the overload.
RESNET_CUDA_INLINE FloatBits narrow_pair(VecPair<float> value, const BFloat16*) {
#if defined(__AVX512BF16__)
  // The instruction concatenates the two vectors; interleaved, element k of the first is the lower half of word k.
  const auto halves = reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(value.second), reinterpret_cast<__m512>(value.first)));
  const FloatBits word = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const FloatBits interleaved = word | (word + 16) << 16;
  return reinterpret_cast<FloatBits>(_mm512_permutexvar_epi16(reinterpret_cast<__m512i>(interleaved), halves));
#else
  return bfloat16_bits(value.first) | bfloat16_bits(value.second) << 16;
#endif
}
#if defined(__AVX2__)
RESNET_CUDA_INLINE FloatBits narrow_pair(VecPair<float> value, const Half16*) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
  return reinterpret_cast<FloatBits>(_mm512_maskz_inserti64x4(
      0xff,
      _mm512_castsi256_si512(_mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(value.first), kRounding)),
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(value.second), kRounding),
      1));
#else
  return reinterpret_cast<FloatBits>(_mm256_set_m128i(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(value.second), kRounding),
      _mm256_cvtps_ph(reinterpret_cast<__m256>(value.first), kRounding)));
#endif
}
#endif

template <typename T>
RESNET_CUDA_INLINE void store_pair(VecPair<RealOf<T>> value, T* target) {
  store(value.first, target);
  store(value.second, target + kLanes<RealOf<T>>);
}
RESNET_CUDA_INLINE void store_pair(VecPair<float> value, BFloat16* target) {
  const FloatBits packed = narrow_pair(value, target);
  memcpy(target, &packed, sizeof(packed));
}
#if defined(__AVX2__)
RESNET_CUDA_INLINE void store_pair(VecPair<float> value, Half16* target) {
  const FloatBits packed = narrow_pair(value, target);
  memcpy(target, &packed, sizeof(packed));
}
#endif

// How many of the `count` elements at `target` lie before the next cache line. `target` is aligned to T.
template <typename T>
RESNET_CUDA_INLINE int64_t elements_before_line(const T* target, int64_t count) {
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(target) % kCacheLine);
  const int64_t before = past == 0 ? 0 : (kCacheLine - past) / static_cast<int64_t>(sizeof(T));
  return smaller(before, count);
}

#if defined(__AVX2__)
template <typename Bits>
RESNET_CUDA_INLINE void stream(Bits value, void* target) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(target), reinterpret_cast<__m512i>(value));
#else
  _mm256_stream_si256(static_cast<__m256i*>(target), reinterpret_cast<__m256i>(value));
#endif
}
#endif

// A streaming store_pair; `target` is aligned to a vector. Ordinary stores where there is no such instruction.
template <typename T>
RESNET_CUDA_INLINE void stream_pair(VecPair<RealOf<T>> value, T* target) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) < sizeof(RealOf<T>)) {
    stream(narrow_pair(value, target), target);
  } else {
    stream(value.first, target);
    stream(value.second, target + kLanes<T>);
  }
#else
  store_pair(value, target);
#endif
}

// Orders this thread's streaming stores before its later stores, as other threads see them.
RESNET_CUDA_INLINE void fence_streaming_stores() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
