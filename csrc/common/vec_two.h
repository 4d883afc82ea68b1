// Two neighbouring vectors stored at once: of a 16-bit type they are one whole vector, where one alone is half of one.
// The stores may go past the caches: memory that is overwritten whole need then not be read first.
#pragma once

#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

#if defined(__AVX2__)
#if defined(__AVX512F__)
typedef __m512i WholeVector;
#else
typedef __m256i WholeVector;
#endif

RESNET_CUDA_INLINE WholeVector pack_two(Vec<float> first, Vec<float> second, const BFloat16*) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
#elif defined(__AVX512F__)
  return _mm512_maskz_inserti64x4(
      0xff,
      _mm512_castsi256_si512(reinterpret_cast<__m256i>(narrow(bfloat16_bits(first)))),
      reinterpret_cast<__m256i>(narrow(bfloat16_bits(second))),
      1);
#else
  // Packs within the halves of both, so the quarters come out as 0 2 1 3.
  const __m256i quarters = _mm256_packus_epi32(
      reinterpret_cast<__m256i>(bfloat16_bits(first)), reinterpret_cast<__m256i>(bfloat16_bits(second)));
  return _mm256_permute4x64_epi64(quarters, 0xd8);
#endif
}

RESNET_CUDA_INLINE WholeVector pack_two(Vec<float> first, Vec<float> second, const Half16*) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
  return _mm512_maskz_inserti64x4(
      0xff,
      _mm512_castsi256_si512(_mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(first), kRounding)),
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(second), kRounding),
      1);
#else
  return _mm256_set_m128i(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(second), kRounding),
      _mm256_cvtps_ph(reinterpret_cast<__m256>(first), kRounding));
#endif
}

RESNET_CUDA_INLINE void stream(WholeVector value, void* target) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(target), value);
#else
  _mm256_stream_si256(static_cast<__m256i*>(target), value);
#endif
}
#endif

template <typename T>
RESNET_CUDA_INLINE void store_two(Vec<RealOf<T>> first, Vec<RealOf<T>> second, T* target) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) < sizeof(RealOf<T>)) {
    const WholeVector both = pack_two(first, second, target);
    memcpy(target, &both, sizeof(both));
    return;
  }
#endif
  store(first, target);
  store(second, target + kLanes<RealOf<T>>);
}

// The memory that the processor writes in one go; stores past the caches fill all of it, one behind the other.
constexpr int64_t kStreamedLine = 64;

// How many of the next `count` elements lie before the first line that begins among them. `target` is aligned to T.
template <typename T>
RESNET_CUDA_INLINE int64_t before_first_line(const T* target, int64_t count) {
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(target) % kStreamedLine);
  const int64_t before = past == 0 ? 0 : (kStreamedLine - past) / static_cast<int64_t>(sizeof(T));
  return before < count ? before : count;
}

// As store_two, past the caches; `target` is a whole number of double vectors behind the beginning of a line. Where
// there is no such instruction, ordinary stores.
template <typename T>
RESNET_CUDA_INLINE void stream_two(Vec<RealOf<T>> first, Vec<RealOf<T>> second, T* target) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) < sizeof(RealOf<T>)) {
    stream(pack_two(first, second, target), target);
  } else {
    stream(reinterpret_cast<WholeVector>(first), target);
    stream(reinterpret_cast<WholeVector>(second), target + kLanes<T>);
  }
#else
  store_two(first, second, target);
#endif
}

// Other threads see what this one has streamed once they see what it writes after this.
RESNET_CUDA_INLINE void finish_streaming() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
