// The CPU loops, compiled for AVX2 with FMA and F16C.
#define RESNET_CUDA_ISA frozen_bn_avx2
#include "frozen_bn/cpu_kernels.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

const Kernels* avx2_kernels(Storage storage) {
  return frozen_bn_avx2::kernels_for(storage);
}

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
