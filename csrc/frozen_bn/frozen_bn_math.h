// FrozenBatchNorm + residual + ReLU for one element, or for a vector of them, and the scale and shift of one channel:
// the arithmetic of the operators, once, for the CPU loops and the CUDA kernels.
#pragma once

#include "common/host_device.h"
#include "common/relu.h"

namespace resnet_cuda {

// The gradient of a ReLU whose result was `output`.
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value relu_gradient(Value grad, Value output) {
  return output <= Value{} ? Value{} : grad;
}

template <typename Value>
RESNET_CUDA_HOST_DEVICE Value scale_and_shift(Value value, Value scale, Value shift) {
  return value * scale + shift;
}

template <typename Real>
struct ScaleAndShift {
  Real scale;
  Real shift;
};

RESNET_CUDA_HOST_DEVICE float inverse_square_root(float value) {
#if defined(__CUDA_ARCH__)
  return rsqrtf(value);
#else
  return 1.0f / __builtin_sqrtf(value);
#endif
}

RESNET_CUDA_HOST_DEVICE double inverse_square_root(double value) {
#if defined(__CUDA_ARCH__)
  return rsqrt(value);
#else
  return 1.0 / __builtin_sqrt(value);
#endif
}

// (x - mean) / sqrt(variance + eps) * weight + bias as x * scale + shift. Where variance + eps is 0 (a channel that was
// constant when its statistics were measured) the normalised value counts as 0, not as 0/0, and the result is the bias.
template <typename Real>
RESNET_CUDA_HOST_DEVICE ScaleAndShift<Real>
normalisation_of(Real weight, Real bias, Real mean, Real variance, Real eps) {
  const Real denominator = variance + eps;
  // Computed even where it is not used: a loop over channels has no branch then and is vectorised.
  const Real usual = weight * inverse_square_root(denominator);
  const Real scale = denominator == Real(0) ? Real(0) : usual;
  return {scale, bias - mean * scale};
}

}  // namespace resnet_cuda
