// FrozenBatchNorm + residual + ReLU for one element, or for a vector of them: the arithmetic of the operator, once, for
// the CPU loops and the CUDA kernels.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {

// NaN stays NaN: only what is known to be at most 0 is clamped.
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value relu_of(Value value) {
  return value <= Value{} ? Value{} : value;
}

// The gradient passed on by a ReLU whose result was `output`.
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value relu_gradient(Value grad, Value output) {
  return output <= Value{} ? Value{} : grad;
}

template <typename Value>
RESNET_CUDA_HOST_DEVICE Value scale_and_shift(Value value, Value scale, Value shift) {
  return value * scale + shift;
}

}  // namespace resnet_cuda
