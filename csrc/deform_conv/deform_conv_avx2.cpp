// The CPU loops, compiled for AVX2 with FMA and F16C.
#define RESNET_CUDA_ISA deform_conv_avx2
#include "deform_conv/cpu_kernels.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

const Kernels* avx2_kernels(Storage storage) {
  return deform_conv_avx2::kernels_for(storage);
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
