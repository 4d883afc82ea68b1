// The CPU loops, compiled for AVX2 with FMA and F16C.
#define RESNET_CUDA_ISA conv2d_winograd_avx2
#include "conv2d_winograd/cpu_kernels.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

const Kernels* avx2_kernels(Storage storage) {
  return conv2d_winograd_avx2::kernels_for(storage);
}

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
