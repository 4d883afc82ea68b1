// The CPU loops, compiled for any machine.
#define RESNET_CUDA_ISA conv2d_winograd_portable
#include "conv2d_winograd/cpu_kernels.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

const Kernels* portable_kernels(Storage storage) {
  return conv2d_winograd_portable::kernels_for(storage);
}

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
