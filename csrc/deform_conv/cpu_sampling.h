// The plan of a tile: for every pixel and tap of a slab, which pixels of the input it reads and with what weights.
#pragma once

#include "common/cache_line.h"
#include "common/vec.h"
#include "common/vec_partial.h"
#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::kSlabTaps;
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

// The whole number beside Real in a vector of as many lanes.
template <typename Real>
struct IndexOf {
  using type = int32_t;
};
template <>
struct IndexOf<double> {
  using type = int64_t;
};
template <typename Real>
using Index = typename IndexOf<Real>::type;

// One tap of as many pixels as a vector has lanes: deform_conv_math.h's TapSample, lane by lane.
template <typename Real>
struct TapVector {
  Vec<Index<Real>> kind;  // of TapKind
  Vec<Real> fraction_y, fraction_x;
  Vec<Index<Real>> top, left;  // 0 where nothing is read
  Vec<Index<Real>> corners;    // bit i is set where corner i lies within the image and is read
  Vec<Real> mask;

  RESNET_CUDA_INLINE_MEMBER Vec<Index<Real>> is(TapKind which) const {
    return kind == static_cast<Index<Real>>(which);
  }

  RESNET_CUDA_INLINE_MEMBER Vec<Real> corner_weight(int index) const {
    return bilinear_weight(fraction_y, fraction_x, index);
  }
};

// sample_tap of deform_conv_math.h for a vector of positions.
template <typename Real>
RESNET_CUDA_INLINE TapVector<Real>
sample_taps(const DeformConvShape& shape, const Vec<Real>& y, const Vec<Real>& x, const Vec<Real>& mask) {
  using Indices = Vec<Index<Real>>;
  const auto kind = [](TapKind which) { return Indices{} + static_cast<Index<Real>>(which); };
  const auto height = static_cast<Index<Real>>(shape.height);
  const auto width = static_cast<Index<Real>>(shape.width);
  const Indices readable =
      (y >= Real(-1)) & (y < static_cast<Real>(height)) & (x >= Real(-1)) & (x < static_cast<Real>(width));
  const Indices inside = readable & (y > Real(-1)) & (x > Real(-1));
  const Indices nan = (y != y) | (x != x);
  // Only what is readable is an ordinary number that a whole number can hold.
  const Vec<Real> readable_y = readable ? y : Vec<Real>{};
  const Vec<Real> readable_x = readable ? x : Vec<Real>{};
  const auto floor = [](const Vec<Real>& position) {
    const Indices truncated = __builtin_convertvector(position, Indices);
    return truncated + (__builtin_convertvector(truncated, Vec<Real>) > position);  // true is -1
  };
  TapVector<Real> taps;
  taps.kind = nan ? kind(TapKind::kNan)
                  : (inside ? kind(TapKind::kInside) : (readable ? kind(TapKind::kBorder) : kind(TapKind::kOutside)));
  taps.top = floor(readable_y);
  taps.left = floor(readable_x);
  taps.fraction_y = readable_y - __builtin_convertvector(taps.top, Vec<Real>);
  taps.fraction_x = readable_x - __builtin_convertvector(taps.left, Vec<Real>);
  const Indices has_top = taps.top >= 0;
  const Indices has_left = taps.left >= 0;
  const Indices has_bottom = taps.top < height - 1;
  const Indices has_right = taps.left < width - 1;
  taps.corners = readable & ((has_top & has_left & 1) | (has_top & has_right & 2) | (has_bottom & has_left & 4) |
                             (has_bottom & has_right & 8));
  taps.mask = mask;
  return taps;
}

// Something for each of the four corners.
typedef int64_t FourCorners __attribute__((vector_size(4 * sizeof(int64_t))));

// All ones for the corners whose bits are set.
RESNET_CUDA_INLINE FourCorners corners_of(int64_t bits) {
  return (FourCorners{bits, bits, bits, bits} & FourCorners{1, 2, 4, 8}) != 0;
}

// How far the corners are from the first, in pixels.
RESNET_CUDA_INLINE FourCorners corner_steps(const DeformConvShape& shape) {
  return FourCorners{0, 1, shape.width, shape.width + 1};
}

template <typename T>
RESNET_CUDA_INLINE FourCorners addresses_of(T* array, const FourCorners& elements) {
  return reinterpret_cast<intptr_t>(array) + elements * static_cast<int64_t>(sizeof(T));
}

// The processor cannot foresee where the taps of the pixels to come read, so it is told this many pixels ahead.
constexpr int64_t kPixelsAhead = 2;

// `count` elements, by cache lines.
template <typename T>
RESNET_CUDA_INLINE void prefetch(const T* source, int64_t count) {
  for (int64_t i = 0; i < count; i += kCacheLine / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(source + i);
  }
}

// The slab's channels of the lower corners alone: the upper ones were most likely some row's lower ones before.
template <typename T>
RESNET_CUDA_INLINE void prefetch_lower(T* const (&corner)[4], const Slab& slab) {
  prefetch(corner[2] + slab.channel_begin, slab.channel_count);
  prefetch(corner[3] + slab.channel_begin, slab.channel_count);
}

// Calls visit(index in the tile of the first lane's pixel, number of lanes that stand for pixels, index of the tap in
// the slab, TapVector, for each lane the first pixel of its image in the input, counted over all images) until it has
// seen every tap of `slab` for every pixel in [begin, end).
template <typename Real, typename Visit>
RESNET_CUDA_INLINE void for_each_tap(
    const Task& task,
    int64_t offset_group,
    int64_t tap_begin,
    int64_t tap_count,
    int64_t begin,
    int64_t end,
    const Visit& visit) {
  constexpr int64_t kPixels = kLanes<Real>;
  const DeformConvShape& shape = task.shape;
  const Plane<const void*>& offsets = task.offset;
  const Plane<const void*>& masks = task.mask;
  const int64_t first_tap = offset_group * shape.taps() + tap_begin;
  // Lanes without a pixel hold what an earlier pixel left there, or 0.
  Real y[kSlabTaps][kPixels] = {};
  Real x[kSlabTaps][kPixels] = {};
  Real mask[kSlabTaps][kPixels] = {};
  int64_t image_begin[kPixels];
  PixelCursor cursor(shape, begin);
  for (int64_t pixel = begin; pixel < end; pixel += kPixels) {
    const int64_t count = smaller(kPixels, end - pixel);
    for (int64_t lane = 0; lane < count; ++lane) {
      image_begin[lane] = cursor.image * shape.height * shape.width;
      const int64_t in_image = cursor.row * shape.out_width + cursor.column;
      const Real* offset = static_cast<const Real*>(offsets.data) + cursor.image * offsets.image +
                           in_image * offsets.pixel + 2 * first_tap * offsets.channel;
      const Real* factor = masks.data == nullptr ? nullptr
                                                 : static_cast<const Real*>(masks.data) + cursor.image * masks.image +
                                                       in_image * masks.pixel + first_tap * masks.channel;
      int64_t kernel_row = tap_begin / shape.kernel_w;
      int64_t kernel_column = tap_begin % shape.kernel_w;
      for (int64_t tap = 0; tap < tap_count; ++tap) {
        y[tap][lane] =
            tap_base<Real>(cursor.row, shape.stride_h, shape.pad_h, kernel_row, shape.dilation_h) + offset[0];
        x[tap][lane] = tap_base<Real>(cursor.column, shape.stride_w, shape.pad_w, kernel_column, shape.dilation_w) +
                       offset[offsets.channel];
        mask[tap][lane] = factor == nullptr ? Real(1) : factor[tap * masks.channel];
        offset += 2 * offsets.channel;
        if (++kernel_column == shape.kernel_w) {
          kernel_column = 0;
          ++kernel_row;
        }
      }
      cursor.advance(shape);
    }
    for (int64_t tap = 0; tap < tap_count; ++tap) {
      visit(
          pixel - begin,
          count,
          tap,
          sample_taps<Real>(shape, load(y[tap]), load(x[tap]), load(mask[tap])),
          image_begin);
    }
  }
}

template <typename Real>
RESNET_CUDA_INLINE Real not_a_number() {
  return static_cast<Real>(__builtin_nanf(""));
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
