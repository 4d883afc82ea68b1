// Loads and stores of the first elements of a vector, for what is left of a row that is no multiple of the vector.
#pragma once

#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// The first `count` elements, fewer than a vector has; the other lanes are 0. Nothing beyond them is read.
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_first(const T* source, int64_t count) {
  T padded[kLanes<RealOf<T>>] = {};
  for (int64_t i = 0; i < count; ++i) {
    padded[i] = source[i];
  }
  return load(padded);
}

template <typename T>
RESNET_CUDA_INLINE void store_first(Vec<RealOf<T>> value, T* target, int64_t count) {
  T padded[kLanes<RealOf<T>>];
  store(value, padded);
  for (int64_t i = 0; i < count; ++i) {
    target[i] = padded[i];
  }
}

// Grouped convolutions are made of such remainders, so where the machine has masked loads they are worth their lines: a
// vector read back from the copy above waits for all the narrow stores.
#if defined(__AVX512F__)

RESNET_CUDA_INLINE uint32_t first_lanes(int64_t count) {
  return (uint32_t{1} << count) - 1;
}

RESNET_CUDA_INLINE Vec<float> load_first(const float* source, int64_t count) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(first_lanes(count)), source));
}
RESNET_CUDA_INLINE Vec<double> load_first(const double* source, int64_t count) {
  return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(first_lanes(count)), source));
}
RESNET_CUDA_INLINE Vec<float> load_first(const Half16* source, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first_lanes(count)), source);
  return reinterpret_cast<Vec<float>>(_mm512_maskz_cvtph_ps(0xffff, bits));
}
RESNET_CUDA_INLINE Vec<float> load_first(const BFloat16* source, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first_lanes(count)), source);
  return reinterpret_cast<Vec<float>>(widen(reinterpret_cast<HalfBits>(bits)) << 16);
}
RESNET_CUDA_INLINE void store_first(Vec<float> value, float* target, int64_t count) {
  _mm512_mask_storeu_ps(target, static_cast<__mmask16>(first_lanes(count)), reinterpret_cast<__m512>(value));
}
RESNET_CUDA_INLINE void store_first(Vec<double> value, double* target, int64_t count) {
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

RESNET_CUDA_INLINE Vec<float> load_first(const float* source, int64_t count) {
  return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(source, first_floats(count)));
}
RESNET_CUDA_INLINE Vec<double> load_first(const double* source, int64_t count) {
  return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(source, first_doubles(count)));
}
RESNET_CUDA_INLINE void store_first(Vec<float> value, float* target, int64_t count) {
  _mm256_maskstore_ps(target, first_floats(count), reinterpret_cast<__m256>(value));
}
RESNET_CUDA_INLINE void store_first(Vec<double> value, double* target, int64_t count) {
  _mm256_maskstore_pd(target, first_doubles(count), reinterpret_cast<__m256d>(value));
}

#endif

// `count` elements, at most a vector.
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_up_to(const T* source, int64_t count) {
  return count == kLanes<RealOf<T>> ? load(source) : load_first(source, count);
}
template <typename T>
RESNET_CUDA_INLINE void store_up_to(Vec<RealOf<T>> value, T* target, int64_t count) {
  count == kLanes<RealOf<T>> ? store(value, target) : store_first(value, target, count);
}

// For loops that are written once and instantiated for whole vectors and for the remainder.
struct Whole {};
struct First {
  int64_t count;
};

template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_part(const T* source, Whole) {
  return load(source);
}
template <typename T>
RESNET_CUDA_INLINE Vec<RealOf<T>> load_part(const T* source, First first) {
  return load_first(source, first.count);
}
template <typename T>
RESNET_CUDA_INLINE void store_part(Vec<RealOf<T>> value, T* target, Whole) {
  store(value, target);
}
template <typename T>
RESNET_CUDA_INLINE void store_part(Vec<RealOf<T>> value, T* target, First first) {
  store_first(value, target, first.count);
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
