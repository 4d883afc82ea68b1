// Kernel bodies of the CUDA deformable convolution, one call per index. They compile for the host too: the tests run
// them in a loop.
//
// A chunk is a run of output pixels, counted over all images. Its columns are [groups][pixels][taps][C/groups].
#pragma once

#include "common/host_device.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

template <typename Real>
struct PositionPlane {
  const Real* data;
  int64_t image, channel, pixel;  // strides, in elements
};

template <typename Real>
struct Chunk {
  DeformConvShape shape;
  int64_t pixel_begin;
  int64_t pixel_count;
  PositionPlane<Real> offset;
  PositionPlane<Real> mask;  // data is null for v1

  // The mask's value, and the sample, of one tap of one of the chunk's pixels for one offset group.
  RESNET_CUDA_HOST_DEVICE TapSample<Real>
  sample(int64_t pixel_in_chunk, int64_t offset_group, int64_t tap, int64_t* image, Real* mask_value) const {
    const int64_t pixel = pixel_begin + pixel_in_chunk;
    *image = pixel / shape.out_pixels();
    const int64_t in_image = pixel % shape.out_pixels();
    const int64_t group_tap = offset_group * shape.taps() + tap;
    const Real* position = offset.data + *image * offset.image + in_image * offset.pixel;
    *mask_value = mask.data == nullptr
                      ? Real(1)
                      : mask.data[*image * mask.image + in_image * mask.pixel + group_tap * mask.channel];
    return sample_tap<Real>(
        shape,
        in_image / shape.out_width,
        in_image % shape.out_width,
        tap / shape.kernel_w,
        tap % shape.kernel_w,
        position[2 * group_tap * offset.channel],
        position[(2 * group_tap + 1) * offset.channel]);
  }

  RESNET_CUDA_HOST_DEVICE int64_t column_index(int64_t pixel_in_chunk, int64_t tap, int64_t channel) const {
    const int64_t group = channel / shape.group_channels();
    const int64_t in_group = channel % shape.group_channels();
    return ((group * pixel_count + pixel_in_chunk) * shape.taps() + tap) * shape.group_channels() + in_group;
  }

  RESNET_CUDA_HOST_DEVICE int64_t input_index(int64_t image, int64_t corner, int64_t channel) const {
    return (image * shape.height * shape.width + corner) * shape.channels + channel;
  }
};

template <typename T, typename Real>
RESNET_CUDA_HOST_DEVICE void read_corners(
    const Chunk<Real>& chunk,
    const TapSample<Real>& sample,
    const T* input,
    int64_t image,
    int64_t channel,
    Real (&value)[4]) {
  for (int i = 0; i < 4; ++i) {
    value[i] =
        sample.corner[i] < 0 ? Real(0) : static_cast<Real>(input[chunk.input_index(image, sample.corner[i], channel)]);
  }
}

template <typename Real>
RESNET_CUDA_HOST_DEVICE Real sampled_value(const TapSample<Real>& sample, const Real (&value)[4]) {
  if (sample.kind == TapKind::kNan) {
    return static_cast<Real>(NAN);
  }
  if (sample.kind != TapKind::kInside) {
    return Real(0);
  }
  return sample.corner_weight(0) * value[0] + sample.corner_weight(1) * value[1] + sample.corner_weight(2) * value[2] +
         sample.corner_weight(3) * value[3];
}

// Index: (pixel, tap, channel), channel fastest. Writes the columns of a chunk.
template <typename T, typename Real>
struct SampleColumns {
  Chunk<Real> chunk;
  const T* input;  // [N, H, W, C]
  T* columns;

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    const int64_t channel = index % chunk.shape.channels;
    const int64_t tap = index / chunk.shape.channels % chunk.shape.taps();
    const int64_t pixel = index / chunk.shape.channels / chunk.shape.taps();
    int64_t image;
    Real mask;
    const auto sample = chunk.sample(pixel, channel / chunk.shape.offset_group_channels(), tap, &image, &mask);
    Real value[4];
    read_corners(chunk, sample, input, image, channel, value);
    columns[chunk.column_index(pixel, tap, channel)] = static_cast<T>(sampled_value(sample, value) * mask);
  }
};

// Index: (pixel, offset group, tap), tap fastest. Writes the gradients for the offsets and the mask.
template <typename T, typename Real>
struct PositionGradients {
  Chunk<Real> chunk;
  const T* input;         // [N, H, W, C]
  const T* grad_columns;  // gradient of the columns, mask included
  Real* grad_offset;      // in the layout of chunk.offset, or null
  Real* grad_mask;        // in the layout of chunk.mask, or null

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    const DeformConvShape& shape = chunk.shape;
    const int64_t tap = index % shape.taps();
    const int64_t offset_group = index / shape.taps() % shape.offset_groups;
    const int64_t pixel = index / shape.taps() / shape.offset_groups;
    int64_t image;
    Real mask;
    const auto sample = chunk.sample(pixel, offset_group, tap, &image, &mask);
    Real sum_y = 0, sum_x = 0, sum_mask = 0;
    const int64_t begin = offset_group * shape.offset_group_channels();
    for (int64_t channel = begin; channel < begin + shape.offset_group_channels(); ++channel) {
      Real value[4];
      read_corners(chunk, sample, input, image, channel, value);
      const auto grad = static_cast<Real>(grad_columns[chunk.column_index(pixel, tap, channel)]);
      sum_mask += grad * sampled_value(sample, value);
      sum_y += grad * mask * slope_y(sample, value);
      sum_x += grad * mask * slope_x(sample, value);
    }
    if (sample.kind == TapKind::kNan) {
      sum_y = sum_x = static_cast<Real>(NAN);
    }
    const int64_t in_image = (chunk.pixel_begin + pixel) % shape.out_pixels();
    const int64_t group_tap = offset_group * shape.taps() + tap;
    if (grad_offset != nullptr) {
      Real* target = grad_offset + image * chunk.offset.image + in_image * chunk.offset.pixel;
      target[2 * group_tap * chunk.offset.channel] = sum_y;
      target[(2 * group_tap + 1) * chunk.offset.channel] = sum_x;
    }
    if (grad_mask != nullptr) {
      grad_mask[image * chunk.mask.image + in_image * chunk.mask.pixel + group_tap * chunk.mask.channel] = sum_mask;
    }
  }
};

// Index: element of [rows, O]. Adds the bias to every row.
template <typename T, typename Real>
struct AddBias {
  const T* bias;
  T* rows;
  int64_t out_channels;

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    rows[index] = static_cast<T>(static_cast<Real>(rows[index]) + static_cast<Real>(bias[index % out_channels]));
  }
};

// Index: element. Adds a chunk's share, rounded to T, to what is accumulated in Real.
template <typename T, typename Real>
struct Accumulate {
  const T* share;
  Real* total;

  RESNET_CUDA_HOST_DEVICE void operator()(int64_t index) const {
    total[index] += static_cast<Real>(share[index]);
  }
};

}  // namespace resnet_cuda
