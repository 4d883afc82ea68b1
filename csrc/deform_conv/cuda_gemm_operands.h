// The operands of a chunk's matrix products by ATen: columns, rows of the output and weight as batches of matrices, one
// per weight group.
#pragma once

#include "common/matrix_product.h"
#include "deform_conv/cuda_chunk.cuh"

namespace resnet_cuda {

// [groups, pixels, taps * C/groups]
inline Tensor column_matrices(const Tensor& columns, const Chunk& chunk) {
  const int64_t width = chunk.shape.taps() * chunk.group_channels;
  const int64_t pixels = chunk.pixels();
  return strided_view(columns, 0, {chunk.shape.groups, pixels, width}, {pixels * width, width, 1});
}

// [groups, pixels, O/groups] of the rows [pixels, O] at `data`; `beside` has their device and dtype.
inline Tensor row_matrices(const void* data, const Chunk& chunk, const Tensor& beside) {
  const int64_t outputs = chunk.shape.out_channels;
  const int64_t group_outputs = chunk.shape.group_out_channels();
  return torch::stable::from_blob(
      const_cast<void*>(data),
      {chunk.shape.groups, chunk.pixels(), group_outputs},
      {group_outputs, outputs, 1},
      beside.device(),
      beside.scalar_type());
}

// The same rows transposed: [groups, O/groups, pixels]. A view made here spares the dispatcher's transpose.
inline Tensor transposed_row_matrices(const void* data, const Chunk& chunk, const Tensor& beside) {
  const int64_t group_outputs = chunk.shape.group_out_channels();
  return torch::stable::from_blob(
      const_cast<void*>(data),
      {chunk.shape.groups, group_outputs, chunk.pixels()},
      {group_outputs, 1, chunk.shape.out_channels},
      beside.device(),
      beside.scalar_type());
}

// [groups, O/groups, taps * C/groups] of the weight as column_ordered() gives it, [O, taps, C/groups], from
// element `begin` on.
inline Tensor weight_matrices(const Tensor& ordered, const DeformConvShape& shape, int64_t begin = 0) {
  const int64_t width = shape.taps() * shape.group_channels();
  const int64_t outputs = shape.group_out_channels();
  return strided_view(ordered, begin, {shape.groups, outputs, width}, {outputs * width, width, 1});
}

// The same transposed: [groups, taps * C/groups, O/groups].
inline Tensor transposed_weight_matrices(const Tensor& ordered, const DeformConvShape& shape) {
  const int64_t width = shape.taps() * shape.group_channels();
  const int64_t outputs = shape.group_out_channels();
  return strided_view(ordered, 0, {shape.groups, width, outputs}, {outputs * width, 1, width});
}

}  // namespace resnet_cuda
