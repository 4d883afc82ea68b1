// The CPU loops for bfloat16, compiled for AVX-512 with its bfloat16 instructions.
#define RESNET_CUDA_ISA deform_conv_avx512_bf16
#include "deform_conv/cpu_kernels.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

const Kernels* avx512_bf16_kernels(Storage storage) {
  return storage == Storage::kBFloat16 ? &deform_conv_avx512_bf16::kKernels<BFloat16> : nullptr;
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
