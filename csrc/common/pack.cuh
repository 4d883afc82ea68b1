// Vectors of elements in one load or store: up to 16 bytes that lie aligned in global memory.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>

#include "common/device.cuh"

#if !defined(RESNET_CUDA_EMULATE)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace resnet_cuda {

constexpr int kPackBytes = 16;

// N neighbouring elements as they lie in memory; N * sizeof(T) is 2, 4, 8 or 16.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= kPackBytes);
  T element[N];
};

namespace pack_detail {

template <int kBytes>
struct WordOf;
#if defined(RESNET_CUDA_EMULATE)
struct alignas(16) Word16 {
  uint32_t part[4];
};
template <>
struct WordOf<16> {
  using type = Word16;
};
#else
template <>
struct WordOf<16> {
  using type = uint4;
};
#endif
template <>
struct WordOf<8> {
  using type = unsigned long long;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};

}  // namespace pack_detail

// Reads N elements at `source`, which must be aligned to N * sizeof(T).
template <int N, typename T>
RESNET_CUDA_BODY Pack<T, N> load_pack(const T* source) {
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  Pack<T, N> pack;
#if defined(RESNET_CUDA_EMULATE)
  device::check_aligned(source, N * sizeof(T));
  const Word word = *reinterpret_cast<const Word*>(source);
#else
  const Word word = *reinterpret_cast<const Word*>(source);
#endif
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

// The same for memory that nothing writes while the kernel runs: by way of the read-only cache.
template <int N, typename T>
RESNET_CUDA_BODY Pack<T, N> load_constant_pack(const T* source) {
#if defined(RESNET_CUDA_EMULATE)
  return load_pack<N>(source);
#else
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  Pack<T, N> pack;
  const Word word = __ldg(reinterpret_cast<const Word*>(source));
  memcpy(&pack, &word, sizeof(pack));
  return pack;
#endif
}

// Writes N elements to `target`, which must be aligned to N * sizeof(T).
template <int N, typename T>
RESNET_CUDA_BODY void store_pack(T* target, const Pack<T, N>& pack) {
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  Word word;
  memcpy(&word, &pack, sizeof(word));
#if defined(RESNET_CUDA_EMULATE)
  device::check_aligned(target, N * sizeof(T));
  *reinterpret_cast<Word*>(target) = word;
#else
  if constexpr (sizeof(Word) == 16) {
    // As an assignment it came out as four stores of 4 bytes in some kernels, for what is older than sm_100.
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(target)), "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w)
                 : "memory");
  } else {
    *reinterpret_cast<Word*>(target) = word;
  }
#endif
}

// The elements of a pack in the type that they are computed in.
template <typename T, int N, typename Real>
RESNET_CUDA_BODY void unpack(const Pack<T, N>& pack, Real (&value)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    value[i] = static_cast<Real>(pack.element[i]);
  }
}

// Rounds to nearest even.
template <typename T, int N, typename Real>
RESNET_CUDA_BODY Pack<T, N> pack_of(const Real (&value)[N]) {
  Pack<T, N> pack;
#if !defined(RESNET_CUDA_EMULATE)
  // Two at a time is one instruction.
  if constexpr (N % 2 == 0 && sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
        const __nv_bfloat162 both = __floats2bfloat162_rn(value[i], value[i + 1]);
        memcpy(&pack.element[i], &both, sizeof(both));
      } else {
        const __half2 both = __floats2half2_rn(value[i], value[i + 1]);
        memcpy(&pack.element[i], &both, sizeof(both));
      }
    }
    return pack;
  } else
#endif
  {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pack.element[i] = static_cast<T>(value[i]);
    }
    return pack;
  }
}

}  // namespace resnet_cuda
