// ReLU of one element, for the CUDA kernels. The CPU kernels have positive_part (vec.h), which may differ in the sign
// of a zero.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {

// NaN stays NaN: only what compares as at most 0 becomes 0.
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value relu_of(Value value) {
  return value <= Value{} ? Value{} : value;
}

}  // namespace resnet_cuda
