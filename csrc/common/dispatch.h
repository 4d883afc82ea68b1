// From a tensor's dtype to the element type that the CUDA kernels are compiled for.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/checks.h"
#include "common/storage_types.h"

namespace resnet_cuda {

// Calls the generic lambda `visit` with a value of the element type.
template <typename Visit>
void dispatch_dtype(ScalarType dtype, const Visit& visit) {
  switch (dtype) {
    case ScalarType::Float:
      return visit(float{});
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // what tests of a planted bug compile, once per bug
    case ScalarType::Double:
      return visit(double{});
    case ScalarType::Half:
      return visit(torch::headeronly::Half{});
    case ScalarType::BFloat16:
      return visit(torch::headeronly::BFloat16{});
#endif
    default:
      throw_unsupported_dtype(dtype);
  }
}

}  // namespace resnet_cuda
