// The CPU loops, compiled for AVX-512 (F, BW, DQ, VL).
#define RESNET_CUDA_ISA deform_conv_avx512
#include "deform_conv/cpu_kernels.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

const Kernels* avx512_kernels(Storage storage) {
  return deform_conv_avx512::kernels_for(storage);
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
