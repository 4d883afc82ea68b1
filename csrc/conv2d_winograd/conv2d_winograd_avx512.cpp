// The CPU loops, compiled for AVX-512 (F, BW, DQ, VL).
#define RESNET_CUDA_ISA conv2d_winograd_avx512
#include "conv2d_winograd/cpu_kernels.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

const Kernels* avx512_kernels(Storage storage) {
  return conv2d_winograd_avx512::kernels_for(storage);
}

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
