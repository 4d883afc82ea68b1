// Where a tap of a deformable convolution reads, and the derivatives of what it reads: the arithmetic of the operator,
// once, for the CPU loops and the CUDA kernels. v1 is v2 with mask 1.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {

// The sizes of one call. H before W throughout.
struct DeformConvShape {
  int64_t batch;
  int64_t channels;      // C
  int64_t height;        // H
  int64_t width;         // W
  int64_t out_channels;  // O
  int64_t out_height;    // Ho
  int64_t out_width;     // Wo
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t dilation_h, dilation_w;
  int64_t groups;
  int64_t offset_groups;

  RESNET_CUDA_HOST_DEVICE int64_t taps() const {
    return kernel_h * kernel_w;
  }
  RESNET_CUDA_HOST_DEVICE int64_t out_pixels() const {
    return out_height * out_width;
  }
  RESNET_CUDA_HOST_DEVICE int64_t group_channels() const {
    return channels / groups;
  }
  RESNET_CUDA_HOST_DEVICE int64_t group_out_channels() const {
    return out_channels / groups;
  }
  RESNET_CUDA_HOST_DEVICE int64_t offset_group_channels() const {
    return channels / offset_groups;
  }
};

// How a tap's position lies to the image.
enum class TapKind : int32_t {
  kOutside,  // reads nothing, has no derivative
  kBorder,   // exactly at -1: reads 0, and has the right-hand derivative
  kInside,
  kNan,  // the position is NaN: so is the value
};

// The weight of one of the four corners below, for fractions that are numbers or vectors of them.
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value bilinear_weight(const Value& fraction_y, const Value& fraction_x, int index) {
  const Value vertical = index < 2 ? 1 - fraction_y : fraction_y;
  const Value horizontal = (index & 1) == 0 ? 1 - fraction_x : fraction_x;
  return vertical * horizontal;
}

// The bilinear patch under one position. Corners are in the order (top, left), (top, right), (bottom, left),
// (bottom, right); Real is the type that positions are computed in, float or double.
template <typename Real>
struct TapSample {
  TapKind kind;
  Real fraction_y;    // distance below the top row, in [0, 1)
  Real fraction_x;    // distance right of the left column
  int64_t corner[4];  // row * W + column of each corner, -1 where it is outside the image and counts as 0

  RESNET_CUDA_HOST_DEVICE Real corner_weight(int index) const {
    return bilinear_weight(fraction_y, fraction_x, index);
  }
};

// `position` is an ordinary number within [-1, size) here, so the cast neither overflows nor meets a NaN.
template <typename Real>
RESNET_CUDA_HOST_DEVICE int64_t floor_to_index(Real position) {
  const auto truncated = static_cast<int64_t>(position);
  return static_cast<Real>(truncated) > position ? truncated - 1 : truncated;
}

// The row (or column) that a tap would read without its offset.
template <typename Real>
RESNET_CUDA_HOST_DEVICE Real
tap_base(int64_t out_place, int64_t stride, int64_t pad, int64_t kernel_place, int64_t dilation) {
  return static_cast<Real>(out_place * stride - pad + kernel_place * dilation);
}

// The position of tap (kernel_row, kernel_column) of output pixel (out_row, out_column), moved by (offset_y, offset_x).
template <typename Real>
RESNET_CUDA_HOST_DEVICE TapSample<Real> sample_tap(
    const DeformConvShape& shape,
    int64_t out_row,
    int64_t out_column,
    int64_t kernel_row,
    int64_t kernel_column,
    Real offset_y,
    Real offset_x) {
  const Real y = tap_base<Real>(out_row, shape.stride_h, shape.pad_h, kernel_row, shape.dilation_h) + offset_y;
  const Real x = tap_base<Real>(out_column, shape.stride_w, shape.pad_w, kernel_column, shape.dilation_w) + offset_x;
  TapSample<Real> sample;
  sample.fraction_y = sample.fraction_x = Real(0);
  sample.corner[0] = sample.corner[1] = sample.corner[2] = sample.corner[3] = -1;
  if (y != y || x != x) {
    sample.kind = TapKind::kNan;
    return sample;
  }
  const bool readable =
      y >= Real(-1) && y < static_cast<Real>(shape.height) && x >= Real(-1) && x < static_cast<Real>(shape.width);
  if (!readable) {
    sample.kind = TapKind::kOutside;
    return sample;
  }
  sample.kind = y > Real(-1) && x > Real(-1) ? TapKind::kInside : TapKind::kBorder;
  const int64_t top = floor_to_index(y);
  const int64_t left = floor_to_index(x);
  sample.fraction_y = y - static_cast<Real>(top);
  sample.fraction_x = x - static_cast<Real>(left);
  const bool has_top = top >= 0;
  const bool has_left = left >= 0;
  const bool has_bottom = top + 1 < shape.height;
  const bool has_right = left + 1 < shape.width;
  const int64_t first = top * shape.width + left;
  sample.corner[0] = has_top && has_left ? first : -1;
  sample.corner[1] = has_top && has_right ? first + 1 : -1;
  sample.corner[2] = has_bottom && has_left ? first + shape.width : -1;
  sample.corner[3] = has_bottom && has_right ? first + shape.width + 1 : -1;
  return sample;
}

// Derivatives of the bilinear value for the position; `value` holds the four corners in TapSample's order. A Sample has
// TapSample's fractions.
template <typename Sample, typename Value>
RESNET_CUDA_HOST_DEVICE Value slope_y(const Sample& sample, const Value (&value)[4]) {
  return (value[2] - value[0]) * (1 - sample.fraction_x) + (value[3] - value[1]) * sample.fraction_x;
}

template <typename Sample, typename Value>
RESNET_CUDA_HOST_DEVICE Value slope_x(const Sample& sample, const Value (&value)[4]) {
  return (value[1] - value[0]) * (1 - sample.fraction_y) + (value[3] - value[2]) * sample.fraction_y;
}

}  // namespace resnet_cuda
