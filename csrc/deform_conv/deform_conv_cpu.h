// The CPU kernels' interface: what deform_conv_cpu.cpp (threads, allocation) hands to the loops, which are compiled
// once per instruction set (deform_conv_portable.cpp, deform_conv_avx2.cpp, deform_conv_avx512.cpp). No torch, no
// allocation.
//
// The columns of the implicit matrix product are cut into slabs: some taps of some channels that share their weight
// group and their offset group. A thread samples a tile of pixels for one slab into a buffer that stays in its cache
// and multiplies it at once.
#pragma once

#include <cstdint>

#include "common/storage_types.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

// Most pixels of a tile; a multiple of every instruction set's rows per register block.
constexpr int64_t kTilePixels = 96;
// Threads share out the pixels in pieces of this, which every number of rows per register block divides.
constexpr int64_t kPixelStep = 12;
// Most columns of a slab (9 taps of 32 channels), and most taps.
constexpr int64_t kSlabColumns = 288;
constexpr int64_t kSlabTaps = 9;
// A slab's columns are padded to a multiple of every instruction set's rows and panel.
constexpr int64_t kColumnPadding = 96;
// Pixels whose position gradients the backward keeps per thread before it sums them; a multiple of kTilePixels.
constexpr int64_t kBandPixels = 6 * kTilePixels;

// Column j of a slab is tap `tap_begin + j / channel_count` of channel `channel_begin + j % channel_count`.
struct Slab {
  int64_t group;
  int64_t offset_group;
  int64_t channel_begin;
  int64_t channel_count;
  int64_t tap_begin;
  int64_t tap_count;
  int64_t column_begin;  // first column within its weight group, in the order of the slabs
  int64_t padded_begin;  // columns, each slab's padded to kColumnPadding, in all the slabs before it
  int64_t slice;         // slabs of the same channels form a slice, which one thread owns in the backward

  RESNET_CUDA_HOST_DEVICE int64_t columns() const {
    return tap_count * channel_count;
  }
  RESNET_CUDA_HOST_DEVICE int64_t padded_columns() const {
    return ceil_div(columns(), kColumnPadding) * kColumnPadding;
  }
};

// The slices that one thread owns in the backward, the channels that they are made of, and their offset groups.
struct SliceRange {
  int64_t slice_begin, slice_end;
  int64_t channel_begin, channel_end;
  int64_t offset_group_begin, offset_group_end;

  RESNET_CUDA_HOST_DEVICE int64_t channels() const {
    return channel_end - channel_begin;
  }
};

template <typename Pointer>
struct Plane {
  Pointer data;
  int64_t image, channel, pixel;  // strides, in elements
};

struct Task {
  DeformConvShape shape;
  const Slab* slabs;
  int64_t slab_count;
  const void* input;          // [N, H, W, C]
  const void* weight;         // [O, C/groups, kh, kw]
  Plane<const void*> offset;  // Real
  Plane<const void*> mask;    // Real; data is null for v1
  const void* zeros;          // [C], input's type: what a corner outside the image reads
};

struct ForwardTask : Task {
  const void* packed;   // Real, by pack_forward
  const void* bias;     // [O], input's type, or null
  Plane<void*> output;  // input's type
};

struct BackwardTask : Task {
  const void* packed;       // Real, by pack_backward
  Plane<const void*> grad;  // input's type
  const SliceRange* ranges;
  int64_t range_count;
  int64_t band_begin;  // first pixel of the band, over all images
  int64_t band_count;
  void* grad_input;     // Real, in the order of input_gradient_blocks.h, or null
  void* grad_weight;    // Real [padded columns of all slabs][padded Og], or null
  void* grad_position;  // Real [ranges][G][kBandPixels][K][3]: y, x, mask; or null
  void* grad_bias;      // Real [O], or null
};

// One instruction set's loops for one element type. A workspace is 64-byte aligned and belongs to one thread.
struct Kernels {
  int64_t (*panel_for)(int64_t group_outputs);  // output channels of a packed panel
  // Panels of output channels, counted over all groups.
  void (*pack_forward)(const Task&, int64_t panel_begin, int64_t panel_end, void* packed);
  void (*pack_backward)(const Task&, int64_t slab_begin, int64_t slab_end, void* packed);
  int64_t (*forward_workspace)(const DeformConvShape&);
  int64_t (*backward_workspace)(const DeformConvShape&);
  void (*forward)(const ForwardTask&, int64_t pixel_begin, int64_t pixel_end, void* workspace);
  // What the slices of the range with the number `range` have to do for the band: the work of one thread.
  void (*backward)(const BackwardTask&, int64_t range, void* workspace);
};

const Kernels& portable_kernels(Storage storage);
const Kernels& avx2_kernels(Storage storage);
const Kernels& avx512_kernels(Storage storage);

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
