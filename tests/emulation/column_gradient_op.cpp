// As an operator, for the tests: the fused columns' gradient of a chunk, of any size, unlike those of the backward,
// whose workspace is small in the emulation.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv_fused/cuda_column_gradient_call.cuh"

namespace resnet_cuda {
namespace {

using Integers = std::vector<int64_t>;

template <typename T>
void run(const DeformConvArguments& arguments, const ColumnGradientChunk& chunk) {
  const Launcher launcher(arguments.input);
  ColumnGradientCalls<T>(launcher, arguments, chunk.chunk.pixels())(chunk);
}

// [groups, pixels, taps, C/groups], empty unless `store`, of images `chunk[0]` to `chunk[0] + chunk[1]`, rows
// `chunk[2]` to `chunk[2] + chunk[3]`; writes their part of `grad_offset` and `grad_mask`. `grad`, `input` and what is
// made of them are channels_last. `geometry`: stride, padding, dilation, offset groups.
Tensor column_gradient(
    const Tensor& grad,
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    const Integers& geometry,
    const Integers& part,
    bool store,
    const std::optional<Tensor>& grad_offset,
    const std::optional<Tensor>& grad_mask) {
  DeformConvArguments arguments{{}, input, weight, offset, mask};
  DeformConvShape& shape = arguments.shape;
  shape.batch = input.size(0);
  shape.channels = input.size(1);
  shape.height = input.size(2);
  shape.width = input.size(3);
  shape.out_channels = weight.size(0);
  shape.out_height = grad.size(2);
  shape.out_width = grad.size(3);
  shape.kernel_h = weight.size(2);
  shape.kernel_w = weight.size(3);
  shape.stride_h = geometry[0];
  shape.stride_w = geometry[1];
  shape.pad_h = geometry[2];
  shape.pad_w = geometry[3];
  shape.dilation_h = geometry[4];
  shape.dilation_w = geometry[5];
  shape.groups = shape.channels / weight.size(1);
  shape.offset_groups = geometry[6];
  const Chunk chunk = chunk_of(shape, part[0], part[1], part[2], part[3]);
  const Tensor columns =
      empty_beside(input, {store ? chunk.pixels() * shape.taps() * shape.channels : 0}, input.scalar_type());
  const auto at = [](const Tensor& tensor, int64_t elements) {
    return static_cast<const char*>(tensor.const_data_ptr()) + elements * static_cast<int64_t>(sizeof(uint16_t));
  };
  const ColumnGradientChunk given{
      chunk,
      at(grad, (part[0] * shape.out_height + part[2]) * shape.out_width * shape.out_channels),
      at(input, part[0] * shape.height * shape.width * shape.channels),
      {plane_of(grad_offset, ScalarType::Float, "gradient for offset"),
       plane_of(grad_mask, ScalarType::Float, "gradient for mask")},
      store ? columns.mutable_data_ptr() : nullptr};
  if (input.scalar_type() == ScalarType::BFloat16) {
    run<torch::headeronly::BFloat16>(arguments, given);
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  if (input.scalar_type() == ScalarType::Half) {
    run<torch::headeronly::Half>(arguments, given);
  }
#endif
  return columns;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_column_gradient, m) {
  m.def(
      "column_gradient(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor? mask, int[] geometry, "
      "int[] part, bool store, Tensor(a!)? grad_offset, Tensor(b!)? grad_mask) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_column_gradient, CPU, m) {
  m.impl("column_gradient", TORCH_BOX(&resnet_cuda::column_gradient));
}
