// The CPU loops, compiled for any machine.
#define RESNET_CUDA_ISA deform_conv_portable
#include "deform_conv/cpu_kernels.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

const Kernels* portable_kernels(Storage storage) {
  return deform_conv_portable::kernels_for(storage);
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
