// The table of the CPU kernels of one instruction set.
#pragma once

#include "common/element_types.h"
#include "deform_conv/cpu_backward.h"
#include "deform_conv/cpu_forward.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

template <typename T>
constexpr deform_conv_cpu::Kernels kKernels = {
    kColumnChannels<ColumnOf<T>>,
    panel_for<RealOf<T>>,
    pack_forward<T>,
    pack_backward<T>,
    forward_workspace<T>,
    backward_workspace<T>,
    forward<T>,
    backward<T>,
};

static inline const deform_conv_cpu::Kernels* kernels_for(Storage storage) {
  return with_element(storage, [](auto element) { return &kKernels<decltype(element)>; });
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
