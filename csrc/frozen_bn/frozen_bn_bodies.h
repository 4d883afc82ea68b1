// Kernel bodies of the CUDA FrozenBatchNorm + residual + ReLU, one call per element. They compile for the host too: the
// tests run them in a loop.
#pragma once

#include "frozen_bn/frozen_bn.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {

RESNET_CUDA_HOST_DEVICE int64_t channel_of(const FrozenBnLayout& layout, int64_t index) {
  return index / layout.plane % layout.channels;
}

template <typename T, typename Real>
struct FrozenBnForward {
  FrozenBnLayout layout;
  const T* input;
  const Real* scale;
  const Real* shift;
  const T* residual;  // or null
  bool relu;
  T* output;

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    const int64_t channel = channel_of(layout, index);
    Real value = scale_and_shift(static_cast<Real>(input[index]), scale[channel], shift[channel]);
    if (residual != nullptr) {
      value += static_cast<Real>(residual[index]);
    }
    output[index] = static_cast<T>(relu ? relu_of(value) : value);
  }
};

template <typename T, typename Real>
struct FrozenBnBackward {
  FrozenBnLayout layout;
  const T* grad;
  const Real* scale;
  const T* output;   // or null where there was no ReLU
  T* grad_input;     // or null
  T* grad_residual;  // or null

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    auto value = static_cast<Real>(grad[index]);
    if (output != nullptr) {
      value = relu_gradient(value, static_cast<Real>(output[index]));
    }
    if (grad_residual != nullptr) {
      grad_residual[index] = static_cast<T>(value);
    }
    if (grad_input != nullptr) {
      grad_input[index] = static_cast<T>(value * scale[channel_of(layout, index)]);
    }
  }
};

}  // namespace resnet_cuda
