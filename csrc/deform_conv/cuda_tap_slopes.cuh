// From the dot products of a tap's corners with the columns' gradient to the gradients for its offset and mask.
#pragma once

#include "deform_conv/cuda_positions.cuh"

namespace resnet_cuda {

// What the derivatives of a tap need beside its dot products.
template <typename Real>
struct alignas(16) TapSlope {
  TapKind kind;
  Real fraction_y;
  Real fraction_x;
  Real mask;
};

template <typename Real>
RESNET_CUDA_BODY TapSlope<Real> tap_slope(const MaskedSample<Real>& tap) {
  return {tap.sample.kind, tap.sample.fraction_y, tap.sample.fraction_x, tap.mask};
}

// The dot product of each corner with the columns' gradient, over the channels of an offset group.
template <typename Real>
struct alignas(16) CornerDots {
  Real corner[4];
};

// The gradients of offsets and masks; either plane's data may be null.
struct PositionGradientPlanes {
  PositionPlane offset;
  PositionPlane mask;

  // Writes those of a tap; `channel` is offset group * taps + tap, `pixel` the pixel of the output.
  template <typename Real>
  RESNET_CUDA_BODY void
  write(int64_t image, int pixel, int channel, const TapSlope<Real>& slope, const CornerDots<Real>& dot) const {
    const bool is_nan = slope.kind == TapKind::kNan;
    if (offset.data != nullptr) {
      const int64_t first = offset.first(image, pixel);
      const Real y = is_nan ? not_a_number<Real>() : slope.mask * slope_y(slope, dot.corner);
      const Real x = is_nan ? not_a_number<Real>() : slope.mask * slope_x(slope, dot.corner);
      offset.write(offset.element(first, 2 * channel), y);
      offset.write(offset.element(first, 2 * channel + 1), x);
    }
    if (mask.data != nullptr) {
      const int64_t first = mask.first(image, pixel);
      mask.write(mask.element(first, channel), is_nan ? not_a_number<Real>() : sample_dot(slope, dot));
    }
  }

 private:
  // The gradient for the mask: the dot product of the tap's sample with the columns' gradient.
  template <typename Real>
  RESNET_CUDA_BODY static Real sample_dot(const TapSlope<Real>& slope, const CornerDots<Real>& dot) {
    if (slope.kind != TapKind::kInside) {
      return Real(0);
    }
    Real sum = Real(0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum += bilinear_weight(slope.fraction_y, slope.fraction_x, i) * dot.corner[i];
    }
    return sum;
  }
};

}  // namespace resnet_cuda
