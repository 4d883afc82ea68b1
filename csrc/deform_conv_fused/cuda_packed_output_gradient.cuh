// The output's gradient as wgmma's operand: its pixels in strip order, in parts that bulk copies bring into shared
// memory as they are.
#pragma once

#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/pack.cuh"
#include "common/tensors.h"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_image_buffers.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// [pixels / 64][channel_parts][64 pixels][64 output channels]: a part is 64 rows of 128 bytes, swizzled, eight atoms.
// Pixels are in strip order, image after image, zero-padded to a multiple of 128; the channels of each weight group are
// zero-padded to a multiple of 64. The same bytes serve as an MN-major operand (kMN), where K are the pixels, and as
// a K-major one (kK), where K are the output channels. All channels of 64 pixels are contiguous.
struct PackedOutputGradient {
  static constexpr int kPixels = 64;
  static constexpr int kChannels = device::kRowElements;
  static constexpr int kBytes = kPixels * device::kSwizzledRow;
  static constexpr int kPixelMultiple = 128;

  int64_t pixels;   // of all images
  int groups;       // of the weight
  int group_parts;  // of a group's output channels

  PackedOutputGradient(const DeformConvShape& shape, int64_t images)
      : pixels(images * shape.out_pixels()),
        groups(static_cast<int>(shape.groups)),
        group_parts(static_cast<int>(ceil_div(shape.group_out_channels(), kChannels))) {
  }

  RESNET_CUDA_HOST_DEVICE int channel_parts() const {
    return groups * group_parts;
  }
  RESNET_CUDA_HOST_DEVICE int64_t count() const {
    return ceil_div(pixels, kPixelMultiple) * (kPixelMultiple / kPixels) * channel_parts();
  }
  RESNET_CUDA_HOST_DEVICE int64_t bytes() const {
    return count() * kBytes;
  }
};

// Index: 16 bytes of the parts. Neighbouring threads read neighbouring channels of a pixel where `channels_first`, else
// neighbouring pixels of a channel.
template <typename T>
struct PackOutputGradient {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowPacks = PackedOutputGradient::kChannels / N;
  static constexpr int kPartPacks = PackedOutputGradient::kPixels * kRowPacks;

  const T* grad;  // [images, O, Ho, Wo] of any layout
  T* parts;
  PackedOutputGradient layout;
  PixelStrides strides;  // of `grad`
  int group_out_channels;
  int out_width;
  bool channels_first;
  bool packs;  // 16 bytes of channels may be read at once
  StripOrder order;
  FastDivision image_pixels;
  FastDivision channel_parts;
  FastDivision32 group_parts;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t part = index / kPartPacks;
    const auto in_part = static_cast<int>(index % kPartPacks);
    const int row = channels_first ? in_part / kRowPacks : in_part % PackedOutputGradient::kPixels;
    const int chunk = channels_first ? in_part % kRowPacks : in_part / PackedOutputGradient::kPixels;
    const int64_t block = channel_parts.quotient(part);
    const auto channel_part = static_cast<int>(part - block * channel_parts.divisor());
    const int group = group_parts.quotient(channel_part);
    const int channel =
        (channel_part - group * group_parts.divisor()) * PackedOutputGradient::kChannels + chunk * N;  // in the group
    const int64_t pixel = block * PackedOutputGradient::kPixels + row;
    Pack<T, N> pack{};
    if (pixel < layout.pixels && channel < group_out_channels) {
      const int64_t image = image_pixels.quotient(pixel);
      const StripPixel at = order.pixel(static_cast<int>(pixel - image * image_pixels.divisor()));
      const T* from = grad + image * strides.image + (at.row * out_width + at.column) * strides.pixel +
                      static_cast<int64_t>(group * group_out_channels + channel) * strides.channel;
      if (packs) {
        pack = load_constant_pack<N>(from);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (channel + i < group_out_channels) {
            pack.element[i] = from[i * strides.channel];
          }
        }
      }
    }
    const int place = device::swizzled(row * device::kSwizzledRow + chunk * kPackBytes);
    store_pack(parts + (part * PackedOutputGradient::kBytes + place) / static_cast<int64_t>(sizeof(T)), pack);
  }
};

// Packs `images` images of `grad`, dense in either layout, from `first_image` on, into `parts`:
// PackedOutputGradient::bytes().
template <typename T>
void pack_output_gradient(
    const Launcher& launcher,
    const Tensor& grad,
    const DeformConvShape& shape,
    int64_t first_image,
    int64_t images,
    T* parts) {
  using Body = PackOutputGradient<T>;
  const PackedOutputGradient layout(shape, images);
  const bool channels_last = is_dense_channels_last(grad);
  const PixelStrides strides = pixel_strides(grad, channels_last);
  const T* first = static_cast<const T*>(grad.const_data_ptr()) + first_image * strides.image;
  const bool packs = channels_last && shape.group_out_channels() % Body::N == 0 && is_aligned(first, kPackBytes);
  launcher.run(
      layout.count() * Body::kPartPacks,
      Body{
          first,
          parts,
          layout,
          strides,
          static_cast<int>(shape.group_out_channels()),
          static_cast<int>(shape.out_width),
          channels_last,
          packs,
          StripOrder(static_cast<int>(shape.out_height), static_cast<int>(shape.out_width)),
          FastDivision(shape.out_pixels()),
          FastDivision(layout.channel_parts()),
          FastDivision32(layout.group_parts)});
}

}  // namespace resnet_cuda
