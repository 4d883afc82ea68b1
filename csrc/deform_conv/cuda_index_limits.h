// What the CUDA kernels' 32-bit numbers can count.
#pragma once

#include <algorithm>

#include "common/checks.h"
#include "common/text.h"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv/deform_conv.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Raises an error for images, outputs and paddings that are beyond it.
inline void check_index_limits(const DeformConvShape& shape) {
  constexpr int64_t kMost = kMostInt32;
  const int64_t pixels = shape.height * shape.width;
  RESNET_CUDA_CHECK_ARGUMENT(
      // A thread of SampleColumns steps by up to kMostTapStep rows of the columns.
      pixels <= kMost / std::max(shape.offset_groups, shape.channels) && shape.channels <= kMost / kMostTapStep &&
          // TapCorners fills up the pixels of a tap to whole warps.
          ceil_div(shape.out_width, device::kWarp) * device::kWarp <= kMost / (4 * shape.taps() * shape.offset_groups),
      "deform_conv2d",
      "input",
      join("of size ", shape.height, "x", shape.width),
      join(
          "of H * W * C below 2^31 per image, of C up to ",
          kMost / kMostTapStep,
          ", and of fewer than 2^29 taps per row, on a GPU"));
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.out_height <= kMost / shape.out_width,
      "deform_conv2d",
      "input",
      size_and_output(shape),
      "such that the output has fewer than 2^31 pixels per image, on a GPU");
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.pad_h <= (kMost - shape.height) / 2 && shape.pad_w <= (kMost - shape.width) / 2,
      "deform_conv2d",
      "padding",
      join("(", shape.pad_h, ", ", shape.pad_w, ")"),
      "such that H + 2 * padding and W + 2 * padding are below 2^31, on a GPU");
}

}  // namespace resnet_cuda
