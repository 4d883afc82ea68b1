// The results of a product whose K several blocks have divided among them.
#pragma once

#include "common/fast_division.h"
#include "deform_conv/cuda_epilogue.cuh"

namespace resnet_cuda {

// Index: two neighbouring channels of [pixels, O]. Adds the parts' sums in their order, the bias, and rounds once.
template <typename T>
struct SumSplits {
  static constexpr int N = 2;

  const float* sums;  // [splits][elements]
  const T* bias;      // [O], or null
  T* output;
  int64_t elements;
  int splits;
  FastDivision row_pairs;  // of O elements
  bool relu;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    float value[N];
    unpack(load_constant_pack<N>(sums + index * N), value);
    for (int split = 1; split < splits; ++split) {
      float added[N];
      unpack(load_constant_pack<N>(sums + split * elements + index * N), added);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        value[i] += added[i];
      }
    }
    add_bias(bias != nullptr ? bias + row_pairs.remainder(index) * N : nullptr, relu, value);
    store_pack(output + index * N, pack_of<T, N>(value));
  }
};

}  // namespace resnet_cuda
