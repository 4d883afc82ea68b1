// Decisions of forward and backward on CUDA before a launch: chunks, pack widths, threads per row, taps per block.
#pragma once

#include <type_traits>
#include <vector>

#include "common/checks.h"
#include "common/dispatch.h"
#include "common/tensors.h"
#include "common/transpose.cuh"
#include "deform_conv/cuda_channels_last.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_block.cuh"
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
  return {dense->data_ptr(), strides.image, strides.channel, strides.pixel, type};
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

inline Tiling output_tiling(const Chunk& chunk) {
  return {chunk.images, chunk.rows, static_cast<int>(chunk.shape.out_width)};
}

// Calls visit(std::integral_constant<int, N>), N elements being one load or store: 16 bytes where the channels of
// weight and offset groups are multiples of 16 bytes and the input is aligned, else 4 bytes, else one element.
template <typename T, typename Visit>
void dispatch_pack(const DeformConvShape& shape, const Tensor& input, const Visit& visit) {
  const auto address = reinterpret_cast<uintptr_t>(input.const_data_ptr());
  const auto fits = [&](int elements) {
    return shape.group_channels() % elements == 0 && shape.offset_group_channels() % elements == 0 &&
           address % (elements * sizeof(T)) == 0;
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

// Launches make(division), the body of a kernel whose blocks begin as TapBlock. A block takes as many taps as it can,
// fewer where that leaves multiprocessors without work.
template <typename Make>
void launch_over_taps(const Launcher& launcher, const Chunk& chunk, int pack, const Make& make) {
  const Tiling tiling = output_tiling(chunk);
  const auto taps = static_cast<int>(chunk.shape.taps());
  const int64_t tiles = tiling.tiles() * chunk.shape.offset_groups;
  int taps_per_block = kMostTapsPerBlock;
  while (taps_per_block > 1 && tiles * ceil_div(taps, taps_per_block) < 4 * launcher.multiprocessors()) {
    taps_per_block = taps_per_block > 3 ? 3 : 1;
  }
  const auto blocks_per_tile = static_cast<int>(ceil_div(taps, taps_per_block));
  launcher.launch(
      tiles * blocks_per_tile,
      make(TapDivision{tiling, taps_per_block, blocks_per_tile, row_threads_for(chunk, pack)}));
}

// The weight as [O, taps, C/groups], as the columns are ordered.
template <typename T>
Tensor column_ordered(const Launcher& launcher, const Tensor& weight, const DeformConvShape& shape) {
  if (is_dense_channels_last(weight) || shape.group_channels() == 1 || shape.taps() == 1) {
    return weight;
  }
  const Tensor ordered = empty_beside(weight, {weight.numel()}, weight.scalar_type());
  transpose(
      launcher,
      weight.const_data_ptr<T>(),
      static_cast<T*>(ordered.mutable_data_ptr()),
      shape.out_channels,
      shape.group_channels(),
      shape.taps());
  return ordered;
}

// Bytes of the copy that column_ordered makes.
inline int64_t weight_bytes(const Tensor& weight) {
  return weight.numel() * static_cast<int64_t>(weight.element_size());
}

// Raises an error for images that the kernels' 32-bit numbers cannot count.
void check_countable(const DeformConvShape& shape);

}  // namespace resnet_cuda
