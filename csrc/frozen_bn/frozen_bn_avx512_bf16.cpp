// The CPU loops for bfloat16, compiled for AVX-512 with its bfloat16 instructions.
#define RESNET_CUDA_ISA frozen_bn_avx512_bf16
#include "frozen_bn/cpu_kernels.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

const Kernels* avx512_bf16_kernels(Storage storage) {
  return storage == Storage::kBFloat16 ? &frozen_bn_avx512_bf16::kKernels<BFloat16> : nullptr;
}

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
