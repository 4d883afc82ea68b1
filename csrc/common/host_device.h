// Qualifiers and integer helpers of functions that the CPU loops and the CUDA kernels share. Nothing from torch.
#pragma once

#include <cstdint>

// Always inlined on the host: the CPU kernels are compiled several times for different instruction sets, and a shared
// out-of-line copy would let the linker give AVX-512 code to a machine without it.
#if defined(__CUDACC__)
#define RESNET_CUDA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RESNET_CUDA_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace resnet_cuda {

RESNET_CUDA_HOST_DEVICE int64_t ceil_div(int64_t numerator, int64_t denominator) {
  return (numerator + denominator - 1) / denominator;
}

RESNET_CUDA_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

inline bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

constexpr int64_t kMostInt32 = (int64_t{1} << 31) - 1;

}  // namespace resnet_cuda
