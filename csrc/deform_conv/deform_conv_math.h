// The sampling position of a deformable convolution's tap, and the derivatives of its sample: shared by the CPU loops
// and the CUDA kernels. v1 is v2 with mask 1.
//
// Functions of a `Value` or a `Place` accept one number (CUDA: sample_tap below) or a vector of them (CPU: sample_taps
// in cpu_sampling.h). Comparisons of vectors give vectors of masks: hence & and not &&.
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

// The bilinear patch under one position; Real is the type that positions are computed in, float or double. Places are
// 32-bit: the CUDA kernels refuse images and paddings that would need more (check_index_limits).
template <typename Real>
struct TapSample {
  TapKind kind;
  int top, left;    // of corner 0, from -1 on; 0 where kind is kOutside or kNan
  Real fraction_y;  // distance below the top row, in [0, 1)
  Real fraction_x;  // distance right of the left column
  int corner[4];    // row * W + column of each corner, -1 where it is outside the image and counts as 0

  RESNET_CUDA_HOST_DEVICE Real corner_weight(int index) const {
    return bilinear_weight(fraction_y, fraction_x, index);
  }
};

// `position` is readable, so the cast neither overflows nor meets a NaN.
template <typename Real>
RESNET_CUDA_HOST_DEVICE int floor_to_index(Real position) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Real) == sizeof(float)) {
    return __float2int_rd(position);  // one instruction
  } else {
    return __double2int_rd(position);
  }
#endif
  const auto truncated = static_cast<int>(position);
  return floor_of(truncated, static_cast<Real>(truncated), position);
}

// The row (or column) that a tap would read without its offset.
template <typename Real, typename Place>
RESNET_CUDA_HOST_DEVICE Real tap_base(Place out_place, Place stride, Place pad, Place kernel_place, Place dilation) {
  return static_cast<Real>(out_place * stride - pad + kernel_place * dilation);
}

// The position of tap (kernel_row, kernel_column) of output pixel (out_row, out_column), moved by (offset_y, offset_x).
template <typename Real>
RESNET_CUDA_HOST_DEVICE TapSample<Real> sample_tap(
    const DeformConvShape& shape,
    int out_row,
    int out_column,
    int kernel_row,
    int kernel_column,
    Real offset_y,
    Real offset_x) {
  const auto number = [](int64_t size) { return static_cast<int>(size); };
  const int height = number(shape.height);
  const int width = number(shape.width);
  const Real y =
      tap_base<Real>(out_row, number(shape.stride_h), number(shape.pad_h), kernel_row, number(shape.dilation_h)) +
      offset_y;
  const Real x =
      tap_base<Real>(out_column, number(shape.stride_w), number(shape.pad_w), kernel_column, number(shape.dilation_w)) +
      offset_x;
  // No early return: all lanes of a warp take the same instructions. A NaN is not readable.
  const bool readable = is_readable(y, static_cast<Real>(height)) & is_readable(x, static_cast<Real>(width));
  TapSample<Real> sample;
  if (readable) {
    sample.kind = is_past_border<Real>(y) & is_past_border<Real>(x) ? TapKind::kInside : TapKind::kBorder;
  } else {
    sample.kind = y != y || x != x ? TapKind::kNan : TapKind::kOutside;
  }
  const Real inside_y = readable ? y : Real(0);
  const Real inside_x = readable ? x : Real(0);
  sample.top = floor_to_index(inside_y);
  sample.left = floor_to_index(inside_x);
  sample.fraction_y = inside_y - static_cast<Real>(sample.top);
  sample.fraction_x = inside_x - static_cast<Real>(sample.left);
  const bool has_top = readable && first_exists(sample.top);
  const bool has_bottom = readable && second_exists(sample.top, height);
  const bool has_left = first_exists(sample.left);
  const bool has_right = second_exists(sample.left, width);
  const int first = sample.top * width + sample.left;
  sample.corner[0] = has_top && has_left ? first : -1;
  sample.corner[1] = has_top && has_right ? first + 1 : -1;
  sample.corner[2] = has_bottom && has_left ? first + width : -1;
  sample.corner[3] = has_bottom && has_right ? first + width + 1 : -1;
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

template <typename Real>
RESNET_CUDA_HOST_DEVICE Real not_a_number() {
  return static_cast<Real>(__builtin_nanf(""));
}

}  // namespace resnet_cuda
