// The plan of a tile: for every pixel and tap of a slab, which pixels of the input it reads and with what weights.
#pragma once

#include "common/vec.h"
#include "common/vec_partial.h"
#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::Plane;
using deform_conv_cpu::Slab;
using deform_conv_cpu::Task;

// An output pixel, counted over all images, as (image, row, column).
struct PixelCursor {
  int64_t image, row, column;

  RESNET_CUDA_HOST_DEVICE PixelCursor(const DeformConvShape& shape, int64_t pixel)
      : image(pixel / shape.out_pixels()),
        row(pixel % shape.out_pixels() / shape.out_width),
        column(pixel % shape.out_width) {
  }

  RESNET_CUDA_HOST_DEVICE void advance(const DeformConvShape& shape) {
    if (++column == shape.out_width) {
      column = 0;
      if (++row == shape.out_height) {
        row = 0;
        ++image;
      }
    }
  }
};

template <typename Real>
struct PlannedTap {
  TapSample<Real> sample;
  Real mask;
  int64_t image_begin;  // first element of the pixel's image in the input
};

// Calls visit(index of the pixel in the tile, index of the tap in the slab, PlannedTap) for every pixel in
// [begin, end) and every tap of `slab`.
template <typename Real, typename Visit>
RESNET_CUDA_INLINE void for_each_tap(
    const Task& task,
    int64_t offset_group,
    int64_t tap_begin,
    int64_t tap_count,
    int64_t begin,
    int64_t end,
    const Visit& visit) {
  const DeformConvShape& shape = task.shape;
  const Plane<const void*>& offsets = task.offset;
  const Plane<const void*>& masks = task.mask;
  const int64_t first_tap = offset_group * shape.taps() + tap_begin;
  PixelCursor cursor(shape, begin);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t in_image = cursor.row * shape.out_width + cursor.column;
    const Real* offset = static_cast<const Real*>(offsets.data) + cursor.image * offsets.image +
                         in_image * offsets.pixel + 2 * first_tap * offsets.channel;
    const Real* mask = masks.data == nullptr ? nullptr
                                             : static_cast<const Real*>(masks.data) + cursor.image * masks.image +
                                                   in_image * masks.pixel + first_tap * masks.channel;
    int64_t kernel_row = tap_begin / shape.kernel_w;
    int64_t kernel_column = tap_begin % shape.kernel_w;
    for (int64_t tap = 0; tap < tap_count; ++tap) {
      PlannedTap<Real> planned;
      planned.sample = sample_tap<Real>(
          shape,
          cursor.row,
          cursor.column,
          kernel_row,
          kernel_column,
          offset[2 * tap * offsets.channel],
          offset[(2 * tap + 1) * offsets.channel]);
      planned.mask = mask == nullptr ? Real(1) : mask[tap * masks.channel];
      planned.image_begin = cursor.image * shape.height * shape.width * shape.channels;
      visit(pixel - begin, tap, planned);
      if (++kernel_column == shape.kernel_w) {
        kernel_column = 0;
        ++kernel_row;
      }
    }
    cursor.advance(shape);
  }
}

template <typename Real>
RESNET_CUDA_INLINE Real not_a_number() {
  return static_cast<Real>(__builtin_nanf(""));
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
