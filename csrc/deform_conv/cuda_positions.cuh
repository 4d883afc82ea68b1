// Offsets and masks as the CUDA kernels read them, and their gradients as they write them: in the caller's layout and
// dtype. Arithmetic is in Real.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/device.cuh"
#include "common/fast_division.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Chosen at run time, not by a template argument: positions are read once per tap and not per channel.
enum class PositionType : int32_t { kReal, kHalf, kBFloat16 };

// Offset, mask or the gradient of one of them.
struct PositionPlane {
  void* data;            // null: absent
  int64_t image, pixel;  // strides, in elements
  uint32_t channel;      // stride, in elements: 1 or the pixels of an image
  PositionType type;

  // The element of channel 0, from which `channel` leads to the others.
  RESNET_CUDA_HOST_DEVICE int64_t first(int64_t at_image, int at_pixel) const {
    return at_image * image + at_pixel * pixel;
  }

  RESNET_CUDA_HOST_DEVICE int64_t element(int64_t first, int at_channel) const {
    // Neither is negative: unsigned, this is one instruction.
    return first + static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(at_channel)) * channel);
  }

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE Real read(int64_t element) const {
    switch (type) {
      case PositionType::kHalf:
        return static_cast<Real>(static_cast<float>(static_cast<const torch::headeronly::Half*>(data)[element]));
      case PositionType::kBFloat16:
        return static_cast<Real>(static_cast<float>(static_cast<const torch::headeronly::BFloat16*>(data)[element]));
      case PositionType::kReal:
        break;
    }
    return static_cast<const Real*>(data)[element];
  }

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE void write(int64_t element, Real value) const {
    switch (type) {
      case PositionType::kHalf:
        static_cast<torch::headeronly::Half*>(data)[element] = static_cast<float>(value);
        return;
      case PositionType::kBFloat16:
        static_cast<torch::headeronly::BFloat16*>(data)[element] = static_cast<float>(value);
        return;
      case PositionType::kReal:
        break;
    }
    static_cast<Real*>(data)[element] = value;
  }
};

template <typename Real>
struct MaskedSample {
  TapSample<Real> sample;
  Real mask;  // 1 for v1
};

// One tap of one output pixel of the whole batch.
struct TapPlace {
  int64_t image;
  int row;
  int column;
  int offset_group;
  int tap;
};

// What moves a tap, and its mask.
template <typename Real>
struct TapOffset {
  Real y;
  Real x;
  Real mask;  // 1 for v1
};

struct Positions {
  PositionPlane offset;  // [N, 2*G*K, Ho, Wo]
  PositionPlane mask;    // [N, G*K, Ho, Wo]

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE TapOffset<Real> read(const DeformConvShape& shape, const TapPlace& place) const {
    const int pixel = place.row * static_cast<int>(shape.out_width) + place.column;
    const int channel = place.offset_group * static_cast<int>(shape.taps()) + place.tap;
    const int64_t vertical = offset.element(offset.first(place.image, pixel), 2 * channel);
    const Real value =
        mask.data == nullptr ? Real(1) : mask.read<Real>(mask.element(mask.first(place.image, pixel), channel));
    return {offset.read<Real>(vertical), offset.read<Real>(vertical + offset.channel), value};
  }

  // `kernel_width` divides by kernel_w.
  template <typename Real>
  RESNET_CUDA_HOST_DEVICE static MaskedSample<Real> sample_at(
      const DeformConvShape& shape,
      const FastDivision32& kernel_width,
      const TapPlace& place,
      const TapOffset<Real>& by) {
    const int kernel_row = kernel_width.quotient(place.tap);
    const int kernel_column = place.tap - kernel_row * kernel_width.divisor();
    return {sample_tap<Real>(shape, place.row, place.column, kernel_row, kernel_column, by.y, by.x), by.mask};
  }

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE MaskedSample<Real>
  sample(const DeformConvShape& shape, const FastDivision32& kernel_width, const TapPlace& place) const {
    return sample_at<Real>(shape, kernel_width, place, read<Real>(shape, place));
  }
};

}  // namespace resnet_cuda
