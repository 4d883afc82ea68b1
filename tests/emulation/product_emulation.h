// bmm of 16-bit matrices into float32, which torch has for CUDA only.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <stdexcept>

#include "common/tensors.h"

namespace resnet_cuda {
namespace emulation {

template <typename T>
void widening_product_of(const Tensor& left, const Tensor& right, const Tensor& out) {
  const auto at = [](const Tensor& matrices, int64_t g, int64_t i, int64_t j) {
    return g * matrices.stride(0) + i * matrices.stride(1) + j * matrices.stride(2);
  };
  const auto* a = static_cast<const T*>(left.const_data_ptr());
  const auto* b = static_cast<const T*>(right.const_data_ptr());
  auto* sums = static_cast<float*>(out.mutable_data_ptr());
  for (int64_t g = 0; g < out.size(0); ++g) {
    for (int64_t i = 0; i < out.size(1); ++i) {
      for (int64_t j = 0; j < out.size(2); ++j) {
        float sum = 0;
        for (int64_t k = 0; k < left.size(2); ++k) {
          sum += static_cast<float>(a[at(left, g, i, k)]) * static_cast<float>(b[at(right, g, k, j)]);
        }
        sums[at(out, g, i, j)] = sum;
      }
    }
  }
}

inline void widening_product(const Tensor& left, const Tensor& right, const Tensor& out) {
  if (out.scalar_type() != torch::headeronly::ScalarType::Float || right.scalar_type() != left.scalar_type()) {
    throw std::runtime_error("resnet_cuda emulation: bmm widens to float32 only");
  }
  switch (left.scalar_type()) {
    case torch::headeronly::ScalarType::Half:
      return widening_product_of<torch::headeronly::Half>(left, right, out);
    case torch::headeronly::ScalarType::BFloat16:
      return widening_product_of<torch::headeronly::BFloat16>(left, right, out);
    default:
      throw std::runtime_error("resnet_cuda emulation: bmm widens 16-bit types only");
  }
}

}  // namespace emulation
}  // namespace resnet_cuda
