// The gradient of a ReLU for a vector pair; for 16-bit types by integer comparisons, before they are widened.
#pragma once

#include "common/vec_pair.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

template <typename T>
RESNET_CUDA_INLINE VecPair<T> relu_gradient_pair(const T* grad, const T* output) {
  const VecPair<T> value = load_pair(grad), result = load_pair(output);
  return {relu_gradient(value.first, result.first), relu_gradient(value.second, result.second)};
}

typedef int16_t ShortBits __attribute__((vector_size(kVectorBytes)));

// `grad` where `output` is above 0 or NaN, else 0. The bits of `output` as int16, in ascending order:
// [INT16_MIN..minus_infinity] = -0 and the negative numbers; above it NaN with a sign; 0; positive numbers, +infinity,
// NaN without a sign.
RESNET_CUDA_INLINE ShortBits masked_gradient(const void* grad, const void* output, int16_t minus_infinity) {
  ShortBits value, result;
  memcpy(&value, grad, sizeof(value));
  memcpy(&result, output, sizeof(result));
  return (result > minus_infinity) & (result != 0) & value;
}

RESNET_CUDA_INLINE VecPair<float> relu_gradient_pair(const BFloat16* grad, const BFloat16* output) {
  const auto minus_infinity = static_cast<int16_t>(0xff80);
  return split_bfloat16(reinterpret_cast<FloatBits>(masked_gradient(grad, output, minus_infinity)));
}
RESNET_CUDA_INLINE VecPair<float> relu_gradient_pair(const Half16* grad, const Half16* output) {
  const auto minus_infinity = static_cast<int16_t>(0xfc00);
  const ShortBits masked = masked_gradient(grad, output, minus_infinity);
  return load_pair(reinterpret_cast<const Half16*>(&masked));
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
