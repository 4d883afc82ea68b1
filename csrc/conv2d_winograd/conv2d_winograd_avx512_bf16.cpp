// The CPU loops for bfloat16, compiled for AVX-512 with its bfloat16 instructions.
#define RESNET_CUDA_ISA conv2d_winograd_avx512_bf16
#include "conv2d_winograd/cpu_kernels.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

const Kernels* avx512_bf16_kernels(Storage storage) {
  return storage == Storage::kBFloat16 ? &conv2d_winograd_avx512_bf16::kKernels<BFloat16> : nullptr;
}

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
