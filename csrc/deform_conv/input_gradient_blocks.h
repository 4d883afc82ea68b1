// The layout of the input's gradient while threads add to it: blocks of pixels, in each block the channels of the first
// thread's range for all its pixels, then the second thread's channels, and so on.
//
// In channels_last every thread would own a few cache lines of each pixel, and a core's prefetcher would fetch the
// adjacent lines, which another core writes: the effect of false sharing. If the cores share no cache, the loops then
// take 1.5 times as long.
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

// A pixel's base address in elements: base + channel is the address of a channel of the range. In channels_last the
// base is `element` = pixel * channels, where `pixel` counts over all images. Arguments: integers or vectors of them.
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
