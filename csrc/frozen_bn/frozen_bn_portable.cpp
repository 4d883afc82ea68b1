// The CPU loops, compiled for any machine.
#define RESNET_CUDA_ISA frozen_bn_portable
#include "frozen_bn/cpu_kernels.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

const Kernels* portable_kernels(Storage storage) {
  return frozen_bn_portable::kernels_for(storage);
}

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
