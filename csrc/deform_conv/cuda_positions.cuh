// Offsets and masks as the CUDA kernels read them, and their gradients as they write them: in the caller's layout and
// dtype. Arithmetic is in Real.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/device.cuh"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Chosen at run time, not by a template argument: positions are read once per tap and not per channel.
enum class PositionType : int32_t { kReal, kHalf, kBFloat16 };

// Offset, mask or the gradient of one of them.
struct PositionPlane {
  void* data;                     // null: absent
  int64_t image, channel, pixel;  // strides, in elements
  PositionType type;

  RESNET_CUDA_HOST_DEVICE int64_t index(int64_t at_image, int64_t at_channel, int64_t at_pixel) const {
    return at_image * image + at_channel * channel + at_pixel * pixel;
  }

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE Real read(int64_t at_image, int64_t at_channel, int64_t at_pixel) const {
    const int64_t element = index(at_image, at_channel, at_pixel);
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
  RESNET_CUDA_HOST_DEVICE void write(int64_t at_image, int64_t at_channel, int64_t at_pixel, Real value) const {
    const int64_t element = index(at_image, at_channel, at_pixel);
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

struct Positions {
  PositionPlane offset;  // [N, 2*G*K, Ho, Wo]
  PositionPlane mask;    // [N, G*K, Ho, Wo]

  template <typename Real>
  RESNET_CUDA_HOST_DEVICE MaskedSample<Real> sample(const DeformConvShape& shape, const TapPlace& place) const {
    const int64_t pixel = place.row * shape.out_width + place.column;
    const int64_t channel = place.offset_group * shape.taps() + place.tap;
    const int kernel_w = static_cast<int>(shape.kernel_w);
    const Real offset_y = offset.read<Real>(place.image, 2 * channel, pixel);
    const Real offset_x = offset.read<Real>(place.image, 2 * channel + 1, pixel);
    const Real value = mask.data == nullptr ? Real(1) : mask.read<Real>(place.image, channel, pixel);
    return {
        sample_tap<Real>(
            shape, place.row, place.column, place.tap / kernel_w, place.tap % kernel_w, offset_y, offset_x),
        value};
  }
};

template <typename Real>
RESNET_CUDA_HOST_DEVICE Real not_a_number() {
  return static_cast<Real>(NAN);
}

}  // namespace resnet_cuda
