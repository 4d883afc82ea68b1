// Vectors of elements in one load or store: up to 16 bytes that lie aligned in global memory.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>
#include <type_traits>

#include "common/device.cuh"

#if !defined(RESNET_CUDA_EMULATE)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace resnet_cuda {

constexpr int kPackBytes = 16;
static_assert(kPackBytes == 16, "the widest load and store of one instruction, as WordOf and store_pack have it");

// N neighbouring elements as they lie in memory.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(
      N > 0 && sizeof(T) * N <= kPackBytes && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0,
      "a pack is one load: 1, 2, 4, 8 or 16 bytes");
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

#if !defined(RESNET_CUDA_EMULATE)

__device__ __forceinline__ void load_unless_negative(int index, const uint4* source, uint4& word) {
  asm("{\n\t.reg .pred p;\n\tsetp.ge.s32 p, %5, 0;\n\tmov.u32 %0, 0;\n\tmov.u32 %1, 0;\n\tmov.u32 %2, 0;\n\t"
      "mov.u32 %3, 0;\n\t@p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "=&r"(word.x), "=&r"(word.y), "=&r"(word.z), "=&r"(word.w)
      : "l"(source), "r"(index));
}
__device__ __forceinline__ void
load_unless_negative(int index, const unsigned long long* source, unsigned long long& word) {
  asm("{\n\t.reg .pred p;\n\tsetp.ge.s32 p, %2, 0;\n\tmov.u64 %0, 0;\n\t@p ld.global.nc.u64 %0, [%1];\n\t}"
      : "=&l"(word)
      : "l"(source), "r"(index));
}
__device__ __forceinline__ void load_unless_negative(int index, const unsigned int* source, unsigned int& word) {
  asm("{\n\t.reg .pred p;\n\tsetp.ge.s32 p, %2, 0;\n\tmov.u32 %0, 0;\n\t@p ld.global.nc.u32 %0, [%1];\n\t}"
      : "=&r"(word)
      : "l"(source), "r"(index));
}
__device__ __forceinline__ void load_unless_negative(int index, const unsigned short* source, unsigned short& word) {
  asm("{\n\t.reg .pred p;\n\tsetp.ge.s32 p, %2, 0;\n\tmov.u16 %0, 0;\n\t@p ld.global.nc.u16 %0, [%1];\n\t}"
      : "=&h"(word)
      : "l"(source), "r"(index));
}

#endif

}  // namespace pack_detail

// A pack as one load returns it. Kept as raw words: after a branch the compiler would widen each 16-bit element to a
// register.
template <typename T, int N>
struct PackWord {
  typename pack_detail::WordOf<N * sizeof(T)>::type word;

  RESNET_CUDA_BODY Pack<T, N> pack() const {
    Pack<T, N> pack;
    memcpy(&pack, &word, sizeof(pack));
    return pack;
  }
};

// Its first 4 bytes.
template <typename T, int N>
RESNET_CUDA_BODY unsigned first_word(const Pack<T, N>& pack) {
  static_assert(sizeof(pack) >= sizeof(unsigned));
  unsigned word;
  memcpy(&word, &pack, sizeof(word));
  return word;
}

// Reads N elements at `source`, which must be aligned to N * sizeof(T).
template <int N, typename T>
RESNET_CUDA_BODY PackWord<T, N> load_pack_word(const T* source) {
#if defined(RESNET_CUDA_EMULATE)
  device::check_aligned(source, N * sizeof(T));
#else
  __builtin_assume(__isGlobal(source));  // the compiler does not always know, and then makes a generic load
#endif
  return *reinterpret_cast<const PackWord<T, N>*>(source);
}

template <int N, typename T>
RESNET_CUDA_BODY Pack<T, N> load_pack(const T* source) {
  return load_pack_word<N>(source).pack();
}

// load_pack through the read-only cache (ld.global.nc), for memory that nothing writes while the kernel runs.
template <int N, typename T>
RESNET_CUDA_BODY Pack<T, N> load_constant_pack(const T* source) {
#if defined(RESNET_CUDA_EMULATE)
  return load_pack<N>(source);
#else
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  return PackWord<T, N>{__ldg(reinterpret_cast<const Word*>(source))}.pack();
#endif
}

// load_constant_pack of pack number `index`; zeros, and no access, for a negative index. One predicated instruction: a
// branch would keep the loads before and after it from being in flight together. An index in packs takes one
// instruction for the address, an index in elements would take three.
template <int N, typename T>
RESNET_CUDA_BODY Pack<T, N> load_constant_pack_or_zeros(const T* packs, int index) {
#if defined(RESNET_CUDA_EMULATE)
  return index >= 0 ? load_pack<N>(packs + static_cast<int64_t>(index) * N) : Pack<T, N>{};
#else
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  Pack<T, N> pack;
  Word word;
  pack_detail::load_unless_negative(index, reinterpret_cast<const Word*>(packs) + index, word);
  memcpy(&pack, &word, sizeof(pack));
  return pack;
#endif
}

// Writes N elements to `target`, which must be aligned to N * sizeof(T).
template <int N, typename T>
RESNET_CUDA_BODY void store_pack(T* target, const Pack<T, N>& pack) {
#if defined(RESNET_CUDA_EMULATE)
  device::check_aligned(target, N * sizeof(T));
  memcpy(target, &pack, sizeof(pack));
#else
  using Word = typename pack_detail::WordOf<N * sizeof(T)>::type;
  const Word word = *reinterpret_cast<const Word*>(&pack);
  if constexpr (sizeof(Word) == kPackBytes) {
    // Assembly: an assignment became narrower stores in some kernels on architectures before sm_100.
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(target)), "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w)
                 : "memory");
  } else {
    __builtin_assume(__isGlobal(target));  // as in load_pack_word
    *reinterpret_cast<Word*>(target) = word;
  }
#endif
}

// store_pack where `wanted`: one predicated instruction, since a branch would keep the loads before and after it from
// being in flight together.
template <typename T, int N>
RESNET_CUDA_BODY void store_pack_if(bool wanted, T* target, const Pack<T, N>& pack) {
#if defined(RESNET_CUDA_EMULATE)
  if (wanted) {
    store_pack(target, pack);
  }
#else
  static_assert(sizeof(pack) == kPackBytes, "16 bytes so far");
  const uint4 word = *reinterpret_cast<const uint4*>(&pack);
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.s32 p, %5, 0;\n\t@p st.global.v4.u32 [%0], {%1, %2, %3, %4};\n\t}"
               :
               : "l"(__cvta_generic_to_global(target)),
                 "r"(word.x),
                 "r"(word.y),
                 "r"(word.z),
                 "r"(word.w),
                 "r"(static_cast<int>(wanted))
               : "memory");
#endif
}

// The elements of a pack in the type that they are computed in.
template <typename T, int N, typename Real>
RESNET_CUDA_BODY void unpack(const Pack<T, N>& pack, Real (&value)[N]) {
  if constexpr (N % 2 == 0 && std::is_same_v<T, torch::headeronly::BFloat16> && std::is_same_v<Real, float>) {
    // A bfloat16 is the upper half of its float32, so each half of a word becomes a float32 by one instruction.
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      uint32_t both;
      memcpy(&both, &pack.element[i], sizeof(both));
      const uint32_t bits[2] = {both << 16, both & 0xffff0000u};
      memcpy(&value[i], bits, sizeof(bits));
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      value[i] = static_cast<Real>(pack.element[i]);
    }
  }
}

// Rounds to nearest even.
template <typename T, int N, typename Real>
RESNET_CUDA_BODY Pack<T, N> pack_of(const Real (&value)[N]) {
  Pack<T, N> pack;
#if !defined(RESNET_CUDA_EMULATE)
  // Two at a time is one instruction.
  if constexpr (N % 2 == 0 && std::is_same_v<T, torch::headeronly::BFloat16>) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const __nv_bfloat162 both = __floats2bfloat162_rn(value[i], value[i + 1]);
      memcpy(&pack.element[i], &both, sizeof(both));
    }
  } else if constexpr (N % 2 == 0 && std::is_same_v<T, torch::headeronly::Half>) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const __half2 both = __floats2half2_rn(value[i], value[i + 1]);
      memcpy(&pack.element[i], &both, sizeof(both));
    }
  } else
#endif
  {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pack.element[i] = static_cast<T>(value[i]);
    }
  }
  return pack;
}

}  // namespace resnet_cuda
