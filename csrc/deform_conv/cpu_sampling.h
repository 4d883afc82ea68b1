// The samples from which a tile's plan is made: for each pixel and tap of a slab the input pixels that it reads, a
// vector of pixels at a time.
#pragma once

#include <type_traits>

#include "common/cache_line.h"
#include "common/vec.h"
#include "common/vec_partial.h"
#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::kSlabTaps;
using deform_conv_cpu::Slab;
using deform_conv_cpu::StridedImages;
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

// The integer as wide as Real, so that vectors of both have as many lanes.
template <typename Real>
using Index = std::conditional_t<sizeof(Real) == sizeof(int64_t), int64_t, int32_t>;

// One tap of as many pixels as a vector has lanes: the TapSample of deform_conv_math.h, lane by lane.
template <typename Real>
struct SampleVector {
  Vec<Index<Real>> kind;  // of TapKind
  Vec<Real> fraction_y, fraction_x;
  Vec<Index<Real>> top, left;  // 0 where nothing is read
  Vec<Index<Real>> corners;    // bit i is set where corner i lies within the image and is read

  RESNET_CUDA_INLINE_MEMBER Vec<Index<Real>> is(TapKind which) const {
    return kind == static_cast<Index<Real>>(which);
  }

  RESNET_CUDA_INLINE_MEMBER Vec<Real> corner_weight(int index) const {
    return bilinear_weight(fraction_y, fraction_x, index);
  }
};

// sample_tap of deform_conv_math.h for a vector of positions.
template <typename Real>
RESNET_CUDA_INLINE SampleVector<Real>
sample_taps(const DeformConvShape& shape, const Vec<Real>& y, const Vec<Real>& x) {
  using Indices = Vec<Index<Real>>;
  const auto kind = [](TapKind which) { return Indices{} + static_cast<Index<Real>>(which); };
  const auto height = static_cast<Index<Real>>(shape.height);
  const auto width = static_cast<Index<Real>>(shape.width);
  const Indices readable = is_readable(y, static_cast<Real>(height)) & is_readable(x, static_cast<Real>(width));
  const Indices inside = readable & is_past_border<Real>(y) & is_past_border<Real>(x);
  const Indices nan = (y != y) | (x != x);
  // Only readable positions can be converted to integers.
  const Vec<Real> readable_y = readable ? y : Vec<Real>{};
  const Vec<Real> readable_x = readable ? x : Vec<Real>{};
  const auto floor = [](const Vec<Real>& position) {
    const Indices truncated = __builtin_convertvector(position, Indices);
    return floor_of(truncated, __builtin_convertvector(truncated, Vec<Real>), position);
  };
  SampleVector<Real> taps;
  taps.kind = nan ? kind(TapKind::kNan)
                  : (inside ? kind(TapKind::kInside) : (readable ? kind(TapKind::kBorder) : kind(TapKind::kOutside)));
  taps.top = floor(readable_y);
  taps.left = floor(readable_x);
  taps.fraction_y = readable_y - __builtin_convertvector(taps.top, Vec<Real>);
  taps.fraction_x = readable_x - __builtin_convertvector(taps.left, Vec<Real>);
  const Indices has_top = first_exists(taps.top);
  const Indices has_left = first_exists(taps.left);
  const Indices has_bottom = second_exists(taps.top, height);
  const Indices has_right = second_exists(taps.left, width);
  taps.corners = readable & ((has_top & has_left & 1) | (has_top & has_right & 2) | (has_bottom & has_left & 4) |
                             (has_bottom & has_right & 8));
  return taps;
}

// An integer for each of the four corners.
typedef int64_t FourCorners __attribute__((vector_size(4 * sizeof(int64_t))));

// All bits set for the corners whose bit is set in `bits`.
RESNET_CUDA_INLINE FourCorners corners_of(int64_t bits) {
  return (FourCorners{bits, bits, bits, bits} & FourCorners{1, 2, 4, 8}) != 0;
}

// The corners' distances from the first, in pixels.
RESNET_CUDA_INLINE FourCorners corner_steps(const DeformConvShape& shape) {
  return FourCorners{0, 1, shape.width, shape.width + 1};
}

template <typename T>
RESNET_CUDA_INLINE FourCorners addresses_of(T* array, const FourCorners& elements) {
  return reinterpret_cast<intptr_t>(array) + elements * static_cast<int64_t>(sizeof(T));
}

template <typename T>
RESNET_CUDA_INLINE void store_addresses(const FourCorners& addresses, T* (&target)[4]) {
  static_assert(sizeof(addresses) == sizeof(target));
  memcpy(target, &addresses, sizeof(addresses));
}

template <typename Real>
RESNET_CUDA_INLINE void store_lane(const Vec<Real> (&corners)[4], int64_t lane, Real (&target)[4]) {
  for (int i = 0; i < 4; ++i) {
    target[i] = corners[i][lane];
  }
}

// Hardware prefetchers cannot predict where taps read, so the loops prefetch, this many pixels ahead.
constexpr int64_t kPrefetchDistance = 2;

// Every cache line of `count` elements.
template <typename T>
RESNET_CUDA_INLINE void prefetch(const T* source, int64_t count) {
  for (int64_t i = 0; i < count; i += kCacheLine / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(source + i);
  }
}

// The slab's channels of the bottom corners alone: the top ones most likely were a previous row's bottom ones.
template <typename T>
RESNET_CUDA_INLINE void prefetch_bottom_corners(T* const (&corner)[4], const Slab& slab) {
  prefetch(corner[2] + slab.channel_begin, slab.channel_count);
  prefetch(corner[3] + slab.channel_begin, slab.channel_count);
}

// One tap of a slab for adjacent output pixels of a tile, one a lane.
template <typename Real>
struct TapVector {
  int64_t tap;                 // its index in the slab
  int64_t pixel;               // the index in the tile of lane 0's pixel
  int64_t count;               // of lanes that stand for pixels
  const int64_t* image_begin;  // for each lane the first pixel of its image in the input, counted over all images
  SampleVector<Real> sample;
  Vec<Real> mask;

  // The input pixel at a lane's first corner, counted over all images.
  RESNET_CUDA_INLINE_MEMBER int64_t first_corner(const DeformConvShape& shape, int64_t lane) const {
    return image_begin[lane] + sample.top[lane] * shape.width + sample.left[lane];
  }
};

// Calls visit(TapVector) for every tap of `slab` and every output pixel in [begin, end), the first pixel of the tile
// being `begin`.
template <typename Real, typename Visit>
RESNET_CUDA_INLINE void
for_each_tap(const Task& task, const Slab& slab, int64_t begin, int64_t end, const Visit& visit) {
  constexpr int64_t kPixels = kLanes<Real>;
  const DeformConvShape& shape = task.shape;
  const StridedImages<const void*>& offsets = task.offset;
  const StridedImages<const void*>& masks = task.mask;
  const int64_t tap_begin = slab.tap_begin;
  const int64_t tap_count = slab.tap_count;
  const int64_t first_tap = slab.offset_group * shape.taps() + tap_begin;
  // Lanes without a pixel keep an earlier pixel's values, or 0.
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
      visit(TapVector<Real>{
          tap,
          pixel - begin,
          count,
          image_begin,
          sample_taps<Real>(shape, load(y[tap]), load(x[tap])),
          load(mask[tap])});
    }
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
