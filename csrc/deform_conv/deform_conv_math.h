// Where a tap of a deformable convolution reads, and the derivatives of its sample, once for the CPU loops and the CUDA
// kernels. v1 is v2 with mask 1.
//
// Functions of a `Value` or a `Place` work on one number (CUDA: sample_tap below) and on a vector of them (CPU:
// sample_taps in cpu_sampling.h), whose comparisons give vectors of masks: hence & and not &&.
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

// A tap's position relative to the image.
enum class TapKind : int32_t {
  kOutside,  // reads nothing, has no derivative
  kBorder,   // y or x is exactly -1, see is_past_border
  kInside,
  kNan,  // the position is NaN: so is the value
};

// The weight of a corner of the bilinear patch: 0 (top, left), 1 (top, right), 2 (bottom, left), 3 (bottom, right).
template <typename Value>
RESNET_CUDA_HOST_DEVICE Value bilinear_weight(const Value& fraction_y, const Value& fraction_x, int index) {
  const Value vertical = index < 2 ? 1 - fraction_y : fraction_y;
  const Value horizontal = (index & 1) == 0 ? 1 - fraction_x : fraction_x;
  return vertical * horizontal;
}

// One axis: a position in [-1, size) reads the two rows (or columns) around it; a row outside the image counts as 0.
template <typename Value, typename Real>
RESNET_CUDA_HOST_DEVICE auto is_readable(const Value& position, Real size) {
  return (position >= Real(-1)) & (position < size);
}

// One axis: false for a readable position of exactly -1, which makes the tap TapKind::kBorder. At exactly -1 the
// bilinear value is 0 anyway. kBorder exists so that 0 times an infinite pixel is 0 and not NaN. The derivative is
// taken as inside.
template <typename Real, typename Value>
RESNET_CUDA_HOST_DEVICE auto is_past_border(const Value& position) {
  return position > Real(-1);
}

template <typename Place>
RESNET_CUDA_HOST_DEVICE auto first_exists(const Place& first) {
  return first >= 0;
}

template <typename Place, typename Size>
RESNET_CUDA_HOST_DEVICE auto second_exists(const Place& first, Size size) {
  return first < size - 1;
}

// The first of the two: `position` rounded down, given it rounded towards 0, as a whole number and converted back.
template <typename Place, typename Value>
RESNET_CUDA_HOST_DEVICE Place floor_of(const Place& truncated, const Value& converted, const Value& position) {
  return converted > position ? truncated - 1 : truncated;
}

// The bilinear patch under one position; Real is the type that positions are computed in, float or double.
template <typename Real>
struct TapSample {
  TapKind kind;
  Real fraction_y;    // distance below the top row, in [0, 1)
  Real fraction_x;    // distance right of the left column
  int top, left;      // row and column of corner 0, given TapKind::kInside or kBorder
  int64_t corner[4];  // row * W + column of each corner, -1 where it is outside the image and counts as 0

  RESNET_CUDA_HOST_DEVICE Real corner_weight(int index) const {
    return bilinear_weight(fraction_y, fraction_x, index);
  }
};

// `position` is readable, so the cast neither overflows nor meets a NaN.
template <typename Real>
RESNET_CUDA_HOST_DEVICE int64_t floor_to_index(Real position) {
  const auto truncated = static_cast<int64_t>(position);
  return floor_of(truncated, static_cast<Real>(truncated), position);
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
  sample.top = sample.left = -1;
  sample.corner[0] = sample.corner[1] = sample.corner[2] = sample.corner[3] = -1;
  if (y != y || x != x) {
    sample.kind = TapKind::kNan;
    return sample;
  }
  if (!(is_readable(y, static_cast<Real>(shape.height)) & is_readable(x, static_cast<Real>(shape.width)))) {
    sample.kind = TapKind::kOutside;
    return sample;
  }
  sample.kind = is_past_border<Real>(y) & is_past_border<Real>(x) ? TapKind::kInside : TapKind::kBorder;
  const int64_t top = floor_to_index(y);
  const int64_t left = floor_to_index(x);
  sample.top = static_cast<int>(top);
  sample.left = static_cast<int>(left);
  sample.fraction_y = y - static_cast<Real>(top);
  sample.fraction_x = x - static_cast<Real>(left);
  const bool has_top = first_exists(top);
  const bool has_left = first_exists(left);
  const bool has_bottom = second_exists(top, shape.height);
  const bool has_right = second_exists(left, shape.width);
  const int64_t first = top * shape.width + left;
  sample.corner[0] = has_top && has_left ? first : -1;
  sample.corner[1] = has_top && has_right ? first + 1 : -1;
  sample.corner[2] = has_bottom && has_left ? first + shape.width : -1;
  sample.corner[3] = has_bottom && has_right ? first + shape.width + 1 : -1;
  return sample;
}

// Derivatives of the bilinear value with respect to the position; `value` holds the four corners. A Sample has
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
