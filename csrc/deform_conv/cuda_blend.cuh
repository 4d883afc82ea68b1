// N channels of the four corners of a tap: loaded, unpacked, interpolated. In one place, so that forward and backward
// sample the same bits.
#pragma once

#include "common/pack.cuh"

namespace resnet_cuda {

// `place` in packs from `source` on; zeros for a negative one.
template <typename T, int N>
RESNET_CUDA_BODY void load_corners(const T* source, const int (&place)[4], Pack<T, N> (&corner)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    corner[i] = load_constant_pack_or_zeros<N>(source, place[i]);
  }
}

// Calls visit(corner's number, its N values).
template <typename Real, typename T, int N, typename Visit>
RESNET_CUDA_BODY void for_each_corner_value(const Pack<T, N> (&corner)[4], const Visit& visit) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    Real value[N];
    unpack(corner[i], value);
    visit(i, value);
  }
}

template <typename T, int N, typename Real>
RESNET_CUDA_BODY void blend_corners(const Real (&weight)[4], const Pack<T, N> (&corner)[4], Real (&sum)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    sum[j] = Real(0);
  }
  for_each_corner_value<Real>(corner, [&](int i, const Real(&value)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum[j] += weight[i] * value[j];
    }
  });
}

}  // namespace resnet_cuda
