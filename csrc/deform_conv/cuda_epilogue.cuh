// What follows the products of a pixel: the bias and the ReLU, in the compute type, before the result is rounded.
#pragma once

#include "common/pack.cuh"
#include "common/relu.h"

namespace resnet_cuda {

// Adds the bias of N neighbouring output channels, from `bias` on, if it is not null; then the ReLU.
template <typename T, int N, typename Real>
RESNET_CUDA_BODY void add_bias(const T* bias, bool relu, Real (&value)[N]) {
  if (bias != nullptr) {
    Real added[N];
    unpack(load_constant_pack<N>(bias), added);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      value[i] += added[i];
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    value[i] = relu ? relu_of(value[i]) : value[i];
  }
}

}  // namespace resnet_cuda
