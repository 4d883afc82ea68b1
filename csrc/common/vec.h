// SIMD vectors of the widest registers that the including file's instruction set has. Loads and stores convert 16-bit
// types.
//
// Only files that are compiled per instruction set (<op>_<set>.cpp, see common/instruction_sets.h) include it. Each
// first defines RESNET_CUDA_ISA as its own namespace, so that the linker cannot merge functions of different sets. For
// the same reason nothing here uses inline functions of the standard library or of torch.
#pragma once

#ifndef RESNET_CUDA_ISA
#error "define RESNET_CUDA_ISA before including common/vec.h"
#endif

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "common/storage_types.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#define RESNET_CUDA_INLINE static inline __attribute__((always_inline))
#define RESNET_CUDA_INLINE_MEMBER inline __attribute__((always_inline))

template <typename Real>
struct VecOf {
  typedef Real type __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(Real));
};

template <typename Real>
using Vec = typename VecOf<Real>::type;

template <typename Real>
constexpr int kLanes = VecOf<Real>::lanes;

RESNET_CUDA_INLINE float half_to_float(uint16_t bits) {
  // Shifted into the bits of a float, a half is too small by 2^112, subnormals included: the exponents' biases differ
  // by 112. Infinity and NaN come out just above the largest half and get a float's largest exponent.
  uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  float value;
  memcpy(&value, &magnitude, sizeof(value));
  value *= 0x1p112f;
  memcpy(&magnitude, &value, sizeof(value));
  if (value >= 65536.0f) {
    magnitude |= 0x7f800000u;
  }
  magnitude |= static_cast<uint32_t>(bits & 0x8000u) << 16;
  memcpy(&value, &magnitude, sizeof(value));
  return value;
}

RESNET_CUDA_INLINE uint16_t float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u);
  }
  if (bits >= 0x477ff000u) {  // 65520 and above round to infinity
    return static_cast<uint16_t>(sign | 0x7c00u);
  }
  if (bits < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to the subnormals' fixed step of 2^-24
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof(bits));
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  bits += 0xfffu + ((bits >> 13) & 1u);  // to nearest, ties to even
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13));
}

RESNET_CUDA_INLINE uint16_t float_to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

RESNET_CUDA_INLINE float to_real(float value) {
  return value;
}
RESNET_CUDA_INLINE double to_real(double value) {
  return value;
}
RESNET_CUDA_INLINE float to_real(Half16 value) {
  return half_to_float(value.bits);
}
RESNET_CUDA_INLINE float to_real(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

RESNET_CUDA_INLINE void from_real(float value, float* target) {
  *target = value;
}
RESNET_CUDA_INLINE void from_real(double value, double* target) {
  *target = value;
}
RESNET_CUDA_INLINE void from_real(float value, Half16* target) {
  target->bits = float_to_half(value);
}
RESNET_CUDA_INLINE void from_real(float value, BFloat16* target) {
  target->bits = float_to_bfloat16(value);
}

RESNET_CUDA_INLINE Vec<float> load(const float* source) {
  Vec<float> value;
  memcpy(&value, source, sizeof(value));
  return value;
}
RESNET_CUDA_INLINE Vec<double> load(const double* source) {
  Vec<double> value;
  memcpy(&value, source, sizeof(value));
  return value;
}

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(kVectorBytes)));

// GCC scalarises these two conversions, so they are intrinsics where there are instructions.
RESNET_CUDA_INLINE FloatBits widen(HalfBits narrow) {
#if defined(__AVX512F__)
  return reinterpret_cast<FloatBits>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(narrow)));
#elif defined(__AVX2__)
  return reinterpret_cast<FloatBits>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(narrow)));
#else
  return __builtin_convertvector(narrow, FloatBits);
#endif
}
// Each lane is below 2^16.
RESNET_CUDA_INLINE HalfBits narrow(FloatBits wide) {
#if defined(__AVX512F__)
  return reinterpret_cast<HalfBits>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(wide)));
#elif defined(__AVX2__)
  const __m256i both = reinterpret_cast<__m256i>(wide);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(both, both), 0x08);
  return reinterpret_cast<HalfBits>(_mm256_castsi256_si128(packed));
#else
  return __builtin_convertvector(wide, HalfBits);
#endif
}

RESNET_CUDA_INLINE Vec<float> load(const BFloat16* source) {
  HalfBits bits;
  memcpy(&bits, source, sizeof(bits));
  return reinterpret_cast<Vec<float>>(widen(bits) << 16);
}
RESNET_CUDA_INLINE Vec<float> load(const Half16* source) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))));
#elif defined(__F16C__)
  return reinterpret_cast<Vec<float>>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))));
#else
  Vec<float> value;
  for (int i = 0; i < kLanes<float>; ++i) {
    value[i] = half_to_float(source[i].bits);
  }
  return value;
#endif
}

RESNET_CUDA_INLINE void store(Vec<float> value, float* target) {
  memcpy(target, &value, sizeof(value));
}
RESNET_CUDA_INLINE void store(Vec<double> value, double* target) {
  memcpy(target, &value, sizeof(value));
}
// Rounded to bfloat16, each lane below 2^16.
RESNET_CUDA_INLINE FloatBits bfloat16_bits(Vec<float> value) {
  const FloatBits bits = reinterpret_cast<FloatBits>(value);
  const FloatBits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // Rounding must not carry a NaN into infinity.
  return value == value ? rounded : (bits >> 16) | 0x40u;
}
RESNET_CUDA_INLINE void store(Vec<float> value, BFloat16* target) {
#if defined(__AVX512BF16__)
  // The same rounding in one instruction, but subnormals (below 2^-126) become 0.
  const __m256bh result = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
#else
  const HalfBits result = narrow(bfloat16_bits(value));
#endif
  memcpy(target, &result, sizeof(result));
}
RESNET_CUDA_INLINE void store(Vec<float> value, Half16* target) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(target),
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(target),
      _mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kLanes<float>; ++i) {
    target[i].bits = float_to_half(value[i]);
  }
#endif
}

// max(0, value), lane by lane; NaN stays NaN: x86's maximum returns its second operand where either is NaN. GCC does
// not use it for a comparison and a selection.
RESNET_CUDA_INLINE Vec<float> positive_part(Vec<float> value) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec<float>>(_mm512_maskz_max_ps(0xffff, __m512{}, reinterpret_cast<__m512>(value)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec<float>>(_mm256_max_ps(__m256{}, reinterpret_cast<__m256>(value)));
#else
  return value <= Vec<float>{} ? Vec<float>{} : value;
#endif
}
RESNET_CUDA_INLINE Vec<double> positive_part(Vec<double> value) {
  return value <= Vec<double>{} ? Vec<double>{} : value;
}

// A tree of additions, whose order is the same on every machine of one vector width.
template <typename Real>
RESNET_CUDA_INLINE Real sum_of_lanes(const Vec<Real>& value) {
  Real lane[kLanes<Real>];
  memcpy(lane, &value, sizeof(value));
#pragma GCC unroll 8
  for (int width = kLanes<Real> / 2; width > 0; width /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) {
      lane[i] += lane[i + width];
    }
  }
  return lane[0];
}

// GCC scalarises that too.
#if defined(__AVX2__)
RESNET_CUDA_INLINE float sum_of_quarter(__m128 value) {
  value = _mm_add_ps(value, _mm_movehl_ps(value, value));
  return _mm_cvtss_f32(_mm_add_ss(value, _mm_movehdup_ps(value)));
}
RESNET_CUDA_INLINE float sum_of_half(__m256 value) {
  return sum_of_quarter(_mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1)));
}
RESNET_CUDA_INLINE double sum_of_half(__m256d value) {
  const __m128d sum = _mm_add_pd(_mm256_castpd256_pd128(value), _mm256_extractf128_pd(value, 1));
  return _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)));
}

#if defined(__AVX512F__)
template <>
RESNET_CUDA_INLINE_MEMBER float sum_of_lanes<float>(const Vec<float>& value) {
  const __m512 lanes = reinterpret_cast<__m512>(value);
  return sum_of_half(
      _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, lanes, 0), _mm512_maskz_extractf32x8_ps(0xff, lanes, 1)));
}
template <>
RESNET_CUDA_INLINE_MEMBER double sum_of_lanes<double>(const Vec<double>& value) {
  const __m512d lanes = reinterpret_cast<__m512d>(value);
  return sum_of_half(
      _mm256_add_pd(_mm512_maskz_extractf64x4_pd(0xf, lanes, 0), _mm512_maskz_extractf64x4_pd(0xf, lanes, 1)));
}
#else
template <>
RESNET_CUDA_INLINE_MEMBER float sum_of_lanes<float>(const Vec<float>& value) {
  return sum_of_half(reinterpret_cast<__m256>(value));
}
template <>
RESNET_CUDA_INLINE_MEMBER double sum_of_lanes<double>(const Vec<double>& value) {
  return sum_of_half(reinterpret_cast<__m256d>(value));
}
#endif
#endif

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
