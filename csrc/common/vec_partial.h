// Loads and stores of a partial vector: the tail of a row that is no multiple of the vector.
#pragma once

#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// The first `count` elements, fewer than a vector has; the other lanes are 0. Nothing beyond them is read.
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_partial(const T* source, int64_t count) {
  T padded[kLanes<RealOf<T>>] = {};
  for (int64_t i = 0; i < count; ++i) {
    padded[i] = source[i];
  }
  return load(padded);
}

template <typename T>
RESNET_CUDA_INLINE void store_partial(Vec<RealOf<T>> value, T* target, int64_t count) {
  T padded[kLanes<RealOf<T>>];
  store(value, padded);
  for (int64_t i = 0; i < count; ++i) {
    target[i] = padded[i];
  }
}

// With masked instructions where there are any: reading back the copy above cannot be store-forwarded from its narrow
// stores and waits for them, and grouped convolutions consist of such tails.
#if defined(__AVX512F__)

RESNET_CUDA_INLINE uint32_t first_lanes(int64_t count) {
  return (uint32_t{1} << count) - 1;
}

RESNET_CUDA_INLINE Vec<float> load_partial(const float* source, int64_t count) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(first_lanes(count)), source));
}
RESNET_CUDA_INLINE Vec<double> load_partial(const double* source, int64_t count) {
  return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(first_lanes(count)), source));
}
RESNET_CUDA_INLINE Vec<float> load_partial(const Half16* source, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first_lanes(count)), source);
  return reinterpret_cast<Vec<float>>(_mm512_maskz_cvtph_ps(0xffff, bits));
}
RESNET_CUDA_INLINE Vec<float> load_partial(const BFloat16* source, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first_lanes(count)), source);
  return reinterpret_cast<Vec<float>>(widen(reinterpret_cast<HalfBits>(bits)) << 16);
}
RESNET_CUDA_INLINE void store_partial(Vec<float> value, float* target, int64_t count) {
  _mm512_mask_storeu_ps(target, static_cast<__mmask16>(first_lanes(count)), reinterpret_cast<__m512>(value));
}
RESNET_CUDA_INLINE void store_partial(Vec<double> value, double* target, int64_t count) {
  _mm512_mask_storeu_pd(target, static_cast<__mmask8>(first_lanes(count)), reinterpret_cast<__m512d>(value));
}

#elif defined(__AVX2__)

RESNET_CUDA_INLINE __m256i first_floats(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
RESNET_CUDA_INLINE __m256i first_doubles(int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

RESNET_CUDA_INLINE Vec<float> load_partial(const float* source, int64_t count) {
  return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(source, first_floats(count)));
}
RESNET_CUDA_INLINE Vec<double> load_partial(const double* source, int64_t count) {
  return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(source, first_doubles(count)));
}
RESNET_CUDA_INLINE void store_partial(Vec<float> value, float* target, int64_t count) {
  _mm256_maskstore_ps(target, first_floats(count), reinterpret_cast<__m256>(value));
}
RESNET_CUDA_INLINE void store_partial(Vec<double> value, double* target, int64_t count) {
  _mm256_maskstore_pd(target, first_doubles(count), reinterpret_cast<__m256d>(value));
}

#endif

// `count` elements, at most a vector.
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_up_to(const T* source, int64_t count) {
  return count == kLanes<RealOf<T>> ? load(source) : load_partial(source, count);
}
template <typename T>
RESNET_CUDA_INLINE void store_up_to(Vec<RealOf<T>> value, T* target, int64_t count) {
  count == kLanes<RealOf<T>> ? store(value, target) : store_partial(value, target, count);
}

// A vector's extent as a type, for code that is written once and instantiated for the loop over full vectors and for
// the tail.
struct FullVector {};
struct PartialVector {
  int64_t count;
};

template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load(const T* source, FullVector) {
  return load(source);
}
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load(const T* source, PartialVector partial) {
  return load_partial(source, partial.count);
}
template <typename T>
RESNET_CUDA_INLINE void store(Vec<RealOf<T>> value, T* target, FullVector) {
  store(value, target);
}
template <typename T>
RESNET_CUDA_INLINE void store(Vec<RealOf<T>> value, T* target, PartialVector partial) {
  store_partial(value, target, partial.count);
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
