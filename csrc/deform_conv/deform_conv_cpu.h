// The interface between deform_conv_cpu.cpp and deform_conv_backward_cpu.cpp (threads, allocation) and the loops, which
// are compiled once per instruction set (deform_conv_<set>.cpp). No torch, no allocation.
//
// Implicit im2col: only a small block of the columns exists at a time. There is one column per tap and channel (or pair
// of channels). A slab is a K-block of the matrix product: some taps of some channels of the same weight group and
// offset group. A thread samples one slab for a tile of pixels (rows of the product) into a buffer that stays in its
// cache, and multiplies it at once.
#pragma once

#include <cstdint>

#include "common/storage_types.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

// At most so many pixels in a tile (a block of the CUDA kernels has 32: cuda_tap_block.cuh); a multiple of every
// instruction set's rows per register block.
constexpr int64_t kTilePixels = 96;
// Pixels are divided among threads in multiples of this; a multiple of every instruction set's rows per register block.
constexpr int64_t kPixelStep = 12;
// At most so many columns in a slab (9 taps of 32 channels or pairs of channels), and so many taps.
constexpr int64_t kSlabColumns = 288;
constexpr int64_t kSlabTaps = 9;
// A slab's columns are padded to a multiple of every instruction set's rows and panel.
constexpr int64_t kColumnPadding = 96;
// Pixels of a band, a multiple of kTilePixels: between two bands the threads' gradients for the positions are summed.
constexpr int64_t kBandPixels = 6 * kTilePixels;

// Column j of a slab is tap `tap_begin + j / tap_columns`. Its channels are one, `channel_begin + j % tap_columns`, or
// Kernels::column_channels adjacent ones; the last column of each tap may have fewer and zeros in their place.
struct Slab {
  int64_t group;
  int64_t offset_group;
  int64_t channel_begin;
  int64_t channel_count;
  int64_t tap_begin;
  int64_t tap_count;
  int64_t tap_columns;   // columns of each tap
  int64_t column_begin;  // columns in all the slabs before it
  int64_t padded_begin;  // columns, each slab's padded to kColumnPadding, in all the slabs before it
  int64_t slice;         // index of its slice: all slabs of the same channels

  RESNET_CUDA_HOST_DEVICE int64_t columns() const {
    return tap_count * tap_columns;
  }
  RESNET_CUDA_HOST_DEVICE int64_t padded_columns() const {
    return ceil_div(columns(), kColumnPadding) * kColumnPadding;
  }
};

// A range: the consecutive slices that one thread owns in the backward, their channels and their offset groups.
struct ThreadChannels {
  int64_t slice_begin, slice_end;
  int64_t channel_begin, channel_end;
  int64_t offset_group_begin, offset_group_end;

  RESNET_CUDA_HOST_DEVICE int64_t channels() const {
    return channel_end - channel_begin;
  }
};

// A 4-D tensor in either layout.
template <typename Pointer>
struct StridedImages {
  Pointer data;
  int64_t image, channel, pixel;  // strides, in elements
};

struct Task {
  DeformConvShape shape;
  const Slab* slabs;
  int64_t slab_count;
  const void* input;                  // [N, H, W, C]
  const void* weight;                 // [O, C/groups, kh, kw]
  StridedImages<const void*> offset;  // Real
  StridedImages<const void*> mask;    // Real; data is null for v1
  const void* zeros;                  // [C], input's type: read for a corner outside the image
};

struct ForwardTask : Task {
  const void* packed;  // by pack_forward: as many bytes as Real [columns of all slabs][padded Og]
  const void* bias;    // [O], input's type, or null
  bool relu;
  StridedImages<void*> output;  // input's type
};

struct BackwardTask : Task {
  const void* packed;               // Real, by pack_backward
  StridedImages<const void*> grad;  // input's type
  const ThreadChannels* ranges;     // one per thread
  int64_t range_count;
  int64_t band_begin;  // first pixel of the band, over all images
  int64_t band_count;
  void* grad_input;     // Real, in the order of input_gradient_blocks.h, or null
  void* grad_weight;    // Real [padded columns of all slabs][padded Og], or null
  void* grad_position;  // Real [ranges][G][kBandPixels][K][3]: y, x, mask; or null
  void* grad_bias;      // Real [O], or null
};

// One instruction set's loops for one element type. A workspace is aligned to a cache line and belongs to one thread.
struct Kernels {
  int64_t column_channels;                      // channels in a column of the forward
  int64_t (*panel_for)(int64_t group_outputs);  // output channels of a packed panel
  // Panels of output channels, counted over all groups.
  void (*pack_forward)(const Task&, int64_t panel_begin, int64_t panel_end, void* packed);
  void (*pack_backward)(const Task&, int64_t slab_begin, int64_t slab_end, void* packed);
  int64_t (*forward_workspace)(const DeformConvShape&);
  int64_t (*backward_workspace)(const DeformConvShape&);
  void (*forward)(const ForwardTask&, int64_t pixel_begin, int64_t pixel_end, void* workspace);
  // One thread's work for the band: the slices of ranges[range].
  void (*backward)(const BackwardTask&, int64_t range, void* workspace);
};

const Kernels* portable_kernels(Storage storage);
const Kernels* avx2_kernels(Storage storage);
const Kernels* avx512_kernels(Storage storage);
// With the dot products of bfloat16: for that type alone, null for other types.
const Kernels* avx512_bf16_kernels(Storage storage);

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
