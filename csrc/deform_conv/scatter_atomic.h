// The gradient of the input by scattering with floating-point atomics: right, but its last bits depend on the order in
// which threads arrive.
#pragma once

#include "common/launch.cuh"
#include "deform_conv/deform_conv_bodies.h"

namespace resnet_cuda {

template <typename Real>
RESNET_CUDA_HOST_DEVICE void atomic_add(Real* target, Real value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(target, value);
#else
  *target += value;
#endif
}

// Index: (pixel, tap, channel), channel fastest.
template <typename T, typename Real>
struct ScatterInputGradient {
  Chunk<Real> chunk;
  const T* grad_columns;
  Real* grad_input;  // [N, H, W, C]

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    const int64_t channel = index % chunk.shape.channels;
    const int64_t tap = index / chunk.shape.channels % chunk.shape.taps();
    const int64_t pixel = index / chunk.shape.channels / chunk.shape.taps();
    int64_t image;
    Real mask;
    const auto sample = chunk.sample(pixel, channel / chunk.shape.offset_group_channels(), tap, &image, &mask);
    if (sample.kind != TapKind::kInside) {
      return;
    }
    const Real grad = static_cast<Real>(grad_columns[chunk.column_index(pixel, tap, channel)]) * mask;
    for (int i = 0; i < 4; ++i) {
      if (sample.corner[i] >= 0) {
        atomic_add(grad_input + chunk.input_index(image, sample.corner[i], channel), sample.corner_weight(i) * grad);
      }
    }
  }
};

}  // namespace resnet_cuda
