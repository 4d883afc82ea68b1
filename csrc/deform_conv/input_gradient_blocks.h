// The layout of the input's gradient while threads add to it: blocks of pixels, in each block the channels of the first
// thread's range for all its pixels, then the second thread's channels, and so on.
//
// In channels_last each pixel would have a few cache lines of every thread, and a core's prefetcher would fetch the
// neighbouring lines that another core writes (as in false sharing): half again as long where two cores share no cache.
#pragma once

#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

constexpr int64_t kGradientBlock = 64;

// Pixels of the block that begins at pixel `block_begin`, of `pixels` in all images.
RESNET_CUDA_HOST_DEVICE int64_t gradient_block_size(int64_t block_begin, int64_t pixels) {
  return smaller(kGradientBlock, pixels - block_begin);
}

// The first element of a range's channels in the block that begins at pixel `block_begin`.
RESNET_CUDA_HOST_DEVICE int64_t
gradient_block_element(int64_t block_begin, int64_t pixels, int64_t channels, const ThreadChannels& range) {
  return block_begin * channels + range.channel_begin * gradient_block_size(block_begin, pixels);
}

// Base address of a pixel (counted over all images), in elements, so that base + channel works for the range's channels
// in this layout as in channels_last, where the base is `element` = pixel * channels. Integers or vectors of them.
//
// With b the pixel's index in its block of n pixels:
//   base = (pixel - b) * channels + range.channel_begin * n + b * range.channels() - range.channel_begin
//        = element + range.channel_begin * (n - 1) - b * (channels - range.channels())
template <typename Places>
RESNET_CUDA_HOST_DEVICE Places gradient_block_element_of(
    const Places& pixel,
    const Places& element,
    int64_t pixels,
    int64_t channels,
    const ThreadChannels& range) {
  const Places in_block = pixel & (kGradientBlock - 1);      // b
  const Places last_of_all = pixels - 1 - pixel + in_block;  // the last pixel of all, counted from the block's first
  // n - 1
  const Places last = last_of_all < kGradientBlock - 1 ? last_of_all : Places{} + (kGradientBlock - 1);
  return element + range.channel_begin * last - in_block * (channels - range.channels());
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
