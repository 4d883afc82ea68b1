// From a tensor's dtype and this machine's instruction set to the table of CPU kernels.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include "common/cpu_capability.h"
#include "common/storage_types.h"

namespace resnet_cuda {

inline Storage storage_of(torch::headeronly::ScalarType dtype) {
  switch (dtype) {
    case torch::headeronly::ScalarType::Double:
      return Storage::kDouble;
    case torch::headeronly::ScalarType::Half:
      return Storage::kHalf;
    case torch::headeronly::ScalarType::BFloat16:
      return Storage::kBFloat16;
    default:
      return Storage::kFloat;
  }
}

// Each of the three gives the table of one instruction set; on other processors than x86-64 only the portable one is
// built.
template <typename Kernels>
using KernelTable = const Kernels& (*)(Storage);

template <typename Kernels>
const Kernels& choose_kernels(
    torch::headeronly::ScalarType dtype,
    KernelTable<Kernels> portable,
    KernelTable<Kernels> avx2,
    KernelTable<Kernels> avx512) {
  switch (cpu_capability()) {
    case CpuCapability::kAvx512Bf16:
    case CpuCapability::kAvx512:
      return avx512(storage_of(dtype));
    case CpuCapability::kAvx2:
      return avx2(storage_of(dtype));
    default:
      return portable(storage_of(dtype));
  }
}

#if defined(RESNET_CUDA_X86)
#define RESNET_CUDA_CHOOSE_KERNELS(dtype, ns) \
  ::resnet_cuda::choose_kernels<ns::Kernels>(dtype, ns::portable_kernels, ns::avx2_kernels, ns::avx512_kernels)
#else
#define RESNET_CUDA_CHOOSE_KERNELS(dtype, ns) ns::portable_kernels(::resnet_cuda::storage_of(dtype))
#endif

}  // namespace resnet_cuda
