// The supported dtypes, once: calls a generic lambda with a value of the tensor's element type.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <stdexcept>

namespace resnet_cuda {

// What elements of a type are computed in.
template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};

template <typename Visit>
void dispatch_dtype(torch::headeronly::ScalarType dtype, const Visit& visit) {
  switch (dtype) {
    case torch::headeronly::ScalarType::Float:
      return visit(float{});
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // what tests of a planted bug compile, once per bug
    case torch::headeronly::ScalarType::Double:
      return visit(double{});
    case torch::headeronly::ScalarType::Half:
      return visit(torch::headeronly::Half{});
    case torch::headeronly::ScalarType::BFloat16:
      return visit(torch::headeronly::BFloat16{});
#endif
    default:
      throw std::runtime_error("resnet_cuda: unsupported dtype");
  }
}

}  // namespace resnet_cuda
