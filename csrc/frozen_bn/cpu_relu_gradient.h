// What a ReLU passes on of a gradient, for two vectors at once. Of 16-bit types it is decided before they are widened.
#pragma once

#include "common/vec_two.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

template <typename T>
RESNET_CUDA_INLINE Two<T> relu_gradient_two(const T* grad, const T* output) {
  const Two<T> value = load_two(grad), result = load_two(output);
  return {relu_gradient(value.first, result.first), relu_gradient(value.second, result.second)};
}

typedef int16_t ShortBits __attribute__((vector_size(kVectorBytes)));

// The bits of the gradients where the result is above 0 or NaN, else 0. Read as integers, what a ReLU stops is 0 and
// all from -0 up to -infinity; beyond that there are the NaN with a sign, and then 0.
RESNET_CUDA_INLINE ShortBits passed_on(const void* grad, const void* output, int16_t minus_infinity) {
  ShortBits value, result;
  memcpy(&value, grad, sizeof(value));
  memcpy(&result, output, sizeof(result));
  return (result > minus_infinity) & (result != 0) & value;
}

RESNET_CUDA_INLINE Two<float> relu_gradient_two(const BFloat16* grad, const BFloat16* output) {
  const auto minus_infinity = static_cast<int16_t>(0xff80);
  return take_apart(reinterpret_cast<FloatBits>(passed_on(grad, output, minus_infinity)));
}
RESNET_CUDA_INLINE Two<float> relu_gradient_two(const Half16* grad, const Half16* output) {
  const auto minus_infinity = static_cast<int16_t>(0xfc00);
  const ShortBits passed = passed_on(grad, output, minus_infinity);
  return load_two(reinterpret_cast<const Half16*>(&passed));
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
