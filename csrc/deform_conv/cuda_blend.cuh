// N channels of four pixels, weighted: in one place, so that the columns are the same bits wherever they are sampled.
#pragma once

#include "common/pack.cuh"

namespace resnet_cuda {

template <typename T, int N, typename Real>
RESNET_CUDA_BODY void blend_corners(const Real (&weight)[4], const Pack<T, N> (&corner)[4], Real (&sum)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    sum[j] = Real(0);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    Real value[N];
    unpack(corner[i], value);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum[j] += weight[i] * value[j];
    }
  }
}

}  // namespace resnet_cuda
