// What the forward and the backward on CUDA decide before they launch: planes, chunks, pack widths, how taps are
// divided.
#pragma once

#include <type_traits>
#include <vector>

#include "common/dispatch.h"
#include "common/tensors.h"
#include "common/transpose.cuh"
#include "deform_conv/cuda_channels_last.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/deform_conv.h"

namespace resnet_cuda {

inline PositionPlane plane_of(const Tensor& dense) {
  const PixelStrides strides = pixel_strides(dense, is_dense_channels_last(dense));
  PositionType type = PositionType::kReal;
  if (dense.scalar_type() == ScalarType::Half) {
    type = PositionType::kHalf;
  } else if (dense.scalar_type() == ScalarType::BFloat16) {
    type = PositionType::kBFloat16;
  }
  return {dense.data_ptr(), strides.image, strides.channel, strides.pixel, type};
}

inline PositionPlane plane_of(const std::optional<Tensor>& dense) {
  return dense ? plane_of(*dense) : PositionPlane{nullptr, 0, 0, 0, PositionType::kReal};
}

inline Positions positions_of(const DeformConvArguments& arguments) {
  return {plane_of(arguments.offset), plane_of(arguments.mask)};
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

inline Tiling input_tiling(const Chunk& chunk) {
  return {chunk.images, static_cast<int>(chunk.shape.height), static_cast<int>(chunk.shape.width)};
}

// Calls visit(std::integral_constant<int, N>) with the elements of one load or store: 16 bytes where the channels of
// weight and offset groups come in such packs, else 4 bytes, else one element.
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

// Threads that share the channels of an offset group: a power of two.
inline int lanes_for(const Chunk& chunk, int pack) {
  int lanes = 1;
  while (lanes < kMostLanes && lanes * pack < chunk.offset_group_channels) {
    lanes *= 2;
  }
  return lanes;
}

// How many taps a block takes: all of them, if that leaves work for every multiprocessor.
struct TapSteps {
  int step;
  int steps;
};

inline TapSteps tap_steps(const Launcher& launcher, const Chunk& chunk, int most_taps) {
  const auto taps = static_cast<int>(chunk.shape.taps());
  const int64_t tiles = output_tiling(chunk).tiles() * chunk.shape.offset_groups;
  int step = most_taps;
  while (step > 1 && tiles * ceil_div(taps, step) < 4 * launcher.multiprocessors()) {
    step = step > 3 ? 3 : 1;
  }
  return {step, static_cast<int>(ceil_div(taps, step))};
}

// Launches a body that works on a tile's taps, made by make(tiling, taps per block, blocks per tile and offset group).
template <typename Body, typename Make>
void launch_over_taps(const Launcher& launcher, const Chunk& chunk, const Make& make) {
  const Tiling tiling = output_tiling(chunk);
  const auto [step, steps] = tap_steps(launcher, chunk, Body::kMostTaps);
  launcher.launch(tiling.tiles() * steps * chunk.shape.offset_groups, Body::kSharedBytes, make(tiling, step, steps));
}

// The weight as [O, taps, C/groups], the order of the columns.
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

// Bytes of what column_ordered makes.
inline int64_t weight_bytes(const Tensor& weight) {
  return weight.numel() * static_cast<int64_t>(weight.element_size());
}

// Pixels and lists are counted in 32 bits.
void check_countable(const DeformConvShape& shape);

}  // namespace resnet_cuda
