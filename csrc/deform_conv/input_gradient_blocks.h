// The order of the input's gradient while the backward adds to it: block by block of pixels, in each block the channels
// of the first range for all its pixels, then those of the second, and so on.
//
// In channels_last every pixel's channels would belong to all threads in turn, a few cache lines each. Their
// prefetchers would fetch each other's lines over and over; where two cores share no cache that takes half again as
// long.
#pragma once

#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

constexpr int64_t kGradientBlock = 64;

// Pixels of the block that begins at `block_begin`, of `pixels` in all images.
RESNET_CUDA_HOST_DEVICE int64_t gradient_block_size(int64_t block_begin, int64_t pixels) {
  return smaller(kGradientBlock, pixels - block_begin);
}

// Where a range's channels of the block that begins at `block_begin` lie, in elements.
RESNET_CUDA_HOST_DEVICE int64_t
gradient_block_element(int64_t block_begin, int64_t pixels, int64_t channels, const SliceRange& range) {
  return block_begin * channels + range.channel_begin * gradient_block_size(block_begin, pixels);
}

// Moves `element`, where channel 0 of `pixel` (counted over all images) lies in channels_last, to where it would lie
// here, were it one of the range's. Places are whole numbers or vectors of them.
template <typename Places>
RESNET_CUDA_HOST_DEVICE void move_to_gradient_block(
    const Places& pixel,
    int64_t pixels,
    int64_t channels,
    const SliceRange& range,
    Places& element) {
  const Places in_block = pixel & (kGradientBlock - 1);
  const Places last_of_rest = pixels - 1 - pixel + in_block;
  const Places last = last_of_rest < kGradientBlock - 1 ? last_of_rest : Places{} + (kGradientBlock - 1);
  element += range.channel_begin * last - in_block * (channels - range.channels());
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
