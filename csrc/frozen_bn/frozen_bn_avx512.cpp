// The CPU loops, compiled for AVX-512 (F, BW, DQ, VL).
#define RESNET_CUDA_ISA frozen_bn_avx512
#include "frozen_bn/cpu_kernels.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

const Kernels* avx512_kernels(Storage storage) {
  return frozen_bn_avx512::kernels_for(storage);
}

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
