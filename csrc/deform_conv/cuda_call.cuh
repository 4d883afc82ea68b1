// Decisions of forward and backward on CUDA before a launch: chunks, pack widths, threads per row, taps per block.
#pragma once

#include <type_traits>
#include <vector>

#include "common/checks.h"
#include "common/dispatch.h"
#include "common/tensors.h"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_image_buffers.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv/cuda_tap_order.cuh"
#include "deform_conv/deform_conv.h"

namespace resnet_cuda {

// The type of an offset, a mask or their gradient, beside images that are computed in `real`.
inline PositionType position_type(ScalarType dtype, ScalarType real, const char* name) {
  if (dtype == real) {
    return PositionType::kReal;
  }
  switch (dtype) {
    case ScalarType::Half:
      return PositionType::kHalf;
    case ScalarType::BFloat16:
      return PositionType::kBFloat16;
    default:
      throw_argument_error(
          "deform_conv2d",
          name,
          dtype_name(dtype),
          join(dtype_name(real), ", torch.float16 or torch.bfloat16 for the CUDA kernels"));
  }
}

inline PositionPlane plane_of(const std::optional<Tensor>& dense, ScalarType real, const char* name) {
  if (!dense) {
    return {nullptr, 0, 0, 0, PositionType::kReal};
  }
  const PixelStrides strides = pixel_strides(*dense, is_dense_channels_last(*dense));
  const PositionType type = position_type(dense->scalar_type(), real, name);
  return {dense->data_ptr(), strides.image, strides.pixel, static_cast<uint32_t>(strides.channel), type};
}

inline Positions positions_of(const DeformConvArguments& arguments) {
  const ScalarType real = compute_dtype(arguments.input.scalar_type());
  return {plane_of(arguments.offset, real, "offset"), plane_of(arguments.mask, real, "mask")};
}

inline Chunk
chunk_of(const DeformConvShape& shape, int64_t first_image, int64_t images, int64_t first_row, int64_t rows) {
  return {
      shape,
      first_image,
      static_cast<int>(images),
      static_cast<int>(first_row),
      static_cast<int>(rows),
      static_cast<int>(shape.group_channels()),
      static_cast<int>(shape.offset_group_channels())};
}

// Calls visit(std::integral_constant<int, N>), N elements being one load or store: 16 bytes where the channels of
// weight and offset groups are multiples of 16 bytes and the input is aligned, else 4 bytes, else one element.
template <typename T, typename Visit>
void dispatch_pack(const DeformConvShape& shape, const Tensor& input, const Visit& visit) {
  const auto fits = [&](int elements) {
    return shape.group_channels() % elements == 0 && shape.offset_group_channels() % elements == 0 &&
           is_aligned(input.const_data_ptr(), elements * sizeof(T));
  };
  constexpr int kWide = kPackBytes / sizeof(T);
  if (fits(kWide)) {
    return visit(std::integral_constant<int, kWide>{});
  }
  if constexpr (sizeof(T) == 2) {
    if (fits(2)) {
      return visit(std::integral_constant<int, 2>{});
    }
  }
  visit(std::integral_constant<int, 1>{});
}

// Threads that share a row of an offset group's channels: a power of two.
inline int row_threads_for(const Chunk& chunk, int pack) {
  int threads = 1;
  while (threads < kMostRowThreads && threads * pack < chunk.offset_group_channels) {
    threads *= 2;
  }
  return threads;
}

// How the blocks of a kernel that begins as TapBlock divide a chunk, and their number.
struct TapBlocks {
  TapDivision division;
  int64_t blocks;
};

inline TapBlocks tap_blocks(const Chunk& chunk, int pack, const TapParts& part) {
  const auto offset_groups = static_cast<int>(chunk.shape.offset_groups);
  const int packs = chunk.offset_group_channels / pack;
  const auto slices = static_cast<int>(ceil_div(packs, part.slice_packs));
  const int parts = offset_groups * slices * static_cast<int>(ceil_div(chunk.shape.taps(), part.taps));
  const int image_pixels = chunk.rows * static_cast<int>(chunk.shape.out_width);
  return {
      {StripOrder(chunk.rows, static_cast<int>(chunk.shape.out_width)),
       FastDivision32(image_pixels),
       FastDivision32(static_cast<int>(chunk.shape.kernel_w)),
       FastDivision32(parts),
       FastDivision32(offset_groups),
       FastDivision32(slices),
       FastDivision32(chunk.group_channels),
       part,
       row_threads_for(chunk, pack),
       chunk.shape.groups == 1},
      ceil_div(chunk.pixels(), kBlockPixels) * parts};
}

// Blocks of SampleColumns: 256 bytes of a row each, two packs of 16 bytes per thread, which share a read of the plan.
// Fewer taps and bytes where that does not give each multiprocessor two blocks.
inline TapBlocks sampling_blocks(const Launcher& launcher, const Chunk& chunk, int pack, int pack_bytes) {
  constexpr int kSliceBytes = 256;
  const int most_packs = kSliceBytes / pack_bytes;
  const int64_t pixel_blocks = ceil_div(chunk.pixels(), kBlockPixels) * chunk.shape.offset_groups;
  const TapParts part = tap_parts(
      pixel_blocks,
      static_cast<int>(chunk.shape.taps()),
      chunk.offset_group_channels / pack,
      most_packs / 2,
      most_packs,
      2 * int64_t{launcher.multiprocessors()});
  return tap_blocks(chunk, pack, part);
}

// Blocks of PositionGradients, of which `at_once` run on a multiprocessor at once: all channels of an offset group,
// since it sums over them.
inline TapBlocks position_blocks(const Launcher& launcher, const Chunk& chunk, int pack, int at_once) {
  const int64_t pixel_blocks = ceil_div(chunk.pixels(), kBlockPixels) * chunk.shape.offset_groups;
  const auto taps = static_cast<int>(chunk.shape.taps());
  const int64_t wave = int64_t{at_once} * launcher.multiprocessors();
  return tap_blocks(chunk, pack, {taps_in_waves(pixel_blocks, taps, wave), chunk.offset_group_channels / pack});
}

// The weight as [O, taps, C/groups], as the columns are ordered.
template <typename T>
Tensor column_ordered(const Launcher& launcher, const Tensor& weight, const DeformConvShape& shape) {
  if (is_dense_channels_last(weight) || shape.group_channels() == 1 || shape.taps() == 1) {
    return weight;
  }
  const Tensor ordered = empty_beside(weight, {weight.numel()}, weight.scalar_type());
  reorder_taps<false>(launcher, weight.const_data_ptr<T>(), static_cast<T*>(ordered.mutable_data_ptr()), shape);
  return ordered;
}

// Bytes of the copy that column_ordered makes.
inline int64_t weight_bytes(const Tensor& weight) {
  return weight.numel() * static_cast<int64_t>(weight.element_size());
}

}  // namespace resnet_cuda
