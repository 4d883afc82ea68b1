// Deformable convolution on CUDA: sampled columns of a chunk of pixels, then ATen's matrix product; registers CUDA.
//
// No loop over images: a chunk is a run of output pixels over the whole batch, as many as fit kColumnBytes of columns.

#include <torch/csrc/stable/ops.h>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "common/matrix_product.h"
#include "common/registration.h"
#include "deform_conv/deform_conv.h"
#include "deform_conv/deform_conv_bodies.h"
#include "deform_conv/scatter_atomic.h"

namespace resnet_cuda {
namespace {

// Columns in flight: few enough to stay in a large GPU's L2 and to be nothing beside the activations.
#if !defined(RESNET_CUDA_COLUMN_BYTES)
#define RESNET_CUDA_COLUMN_BYTES (int64_t{48} << 20)
#endif
constexpr int64_t kColumnBytes = RESNET_CUDA_COLUMN_BYTES;

template <typename Real>
PositionPlane<Real> plane_of(const Tensor& dense) {
  const PixelStrides strides = pixel_strides(dense, output_memory_format(dense) == MemoryFormat::ChannelsLast);
  return {dense.const_data_ptr<Real>(), strides.image, strides.channel, strides.pixel};
}

template <typename Real>
Chunk<Real> whole_call(const DeformConvArguments& arguments) {
  Chunk<Real> chunk{arguments.shape, 0, 0, plane_of<Real>(arguments.offset), {nullptr, 0, 0, 0}};
  if (arguments.mask) {
    chunk.mask = plane_of<Real>(*arguments.mask);
  }
  return chunk;
}

// Pixels of a full chunk.
int64_t chunk_pixels(const DeformConvArguments& arguments) {
  const DeformConvShape& shape = arguments.shape;
  const int64_t pixel_bytes = shape.channels * shape.taps() * static_cast<int64_t>(arguments.input.element_size());
  const int64_t fitting = kColumnBytes / pixel_bytes;
  return smaller(shape.batch * shape.out_pixels(), fitting < 1 ? 1 : fitting);
}

// [groups, C/groups * taps, O/groups] -> the order of the columns: a tap's channels lie together.
Tensor column_ordered(const Tensor& weight, const DeformConvShape& shape) {
  const Tensor split =
      torch::stable::view(weight, {shape.groups, shape.group_out_channels(), shape.group_channels(), shape.taps()});
  return torch::stable::contiguous(torch::stable::transpose(split, 2, 3));
}

// The chunk's rows of [pixels, O] as [groups, pixels, O/groups].
Tensor grouped_rows(const Tensor& rows, const DeformConvShape& shape, int64_t begin, int64_t count) {
  return strided_view(
      rows,
      begin * shape.out_channels,
      {shape.groups, count, shape.group_out_channels()},
      {shape.group_out_channels(), shape.out_channels, 1});
}

Tensor grouped_columns(const Tensor& columns, const DeformConvShape& shape, int64_t count) {
  const int64_t group_columns = shape.taps() * shape.group_channels();
  return strided_view(columns, 0, {shape.groups, count, group_columns}, {count * group_columns, group_columns, 1});
}

template <typename T>
void forward(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, const Tensor& output) {
  using Real = typename ComputeType<T>::type;
  const DeformConvShape& shape = arguments.shape;
  const Launcher launcher(arguments.input);
  const int64_t pixels = shape.batch * shape.out_pixels();
  const int64_t most = chunk_pixels(arguments);
  const int64_t group_columns = shape.taps() * shape.group_channels();
  const Tensor columns = empty_beside(output, {most * shape.taps() * shape.channels}, output.scalar_type());
  const Tensor weight = column_ordered(arguments.weight, shape);
  const Tensor weight_columns = strided_view(
      weight,
      0,
      {shape.groups, group_columns, shape.group_out_channels()},
      {group_columns * shape.group_out_channels(), 1, group_columns});
  const bool channels_last = output_memory_format(output) == MemoryFormat::ChannelsLast;
  const Tensor rows = channels_last ? output : empty_beside(output, {pixels, shape.out_channels}, output.scalar_type());

  Chunk<Real> chunk = whole_call<Real>(arguments);
  for (; chunk.pixel_begin < pixels; chunk.pixel_begin += most) {
    chunk.pixel_count = smaller(most, pixels - chunk.pixel_begin);
    launcher.run(
        chunk.pixel_count * shape.taps() * shape.channels,
        SampleColumns<T, Real>{
            chunk, arguments.input.const_data_ptr<T>(), static_cast<T*>(columns.mutable_data_ptr())});
    batched_product(
        grouped_columns(columns, shape, chunk.pixel_count),
        weight_columns,
        grouped_rows(rows, shape, chunk.pixel_begin, chunk.pixel_count));
  }
  if (bias) {
    launcher.run(
        pixels * shape.out_channels,
        AddBias<T, Real>{bias->const_data_ptr<T>(), static_cast<T*>(rows.mutable_data_ptr()), shape.out_channels});
  }
  if (!channels_last) {
    Tensor target = output;
    const int64_t image = shape.out_pixels() * shape.out_channels;
    torch::stable::copy_(
        target,
        strided_view(
            rows,
            0,
            {shape.batch, shape.out_channels, shape.out_height, shape.out_width},
            {image, 1, shape.out_width * shape.out_channels, shape.out_channels}));
  }
}

template <typename T>
void backward(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvGradients& gradients) {
  using Real = typename ComputeType<T>::type;
  const DeformConvShape& shape = arguments.shape;
  const Launcher launcher(arguments.input);
  const int64_t pixels = shape.batch * shape.out_pixels();
  const int64_t most = chunk_pixels(arguments);
  const int64_t group_columns = shape.taps() * shape.group_channels();
  const int64_t weight_elements = shape.out_channels * group_columns;
  const Tensor rows = torch::stable::contiguous(grad, MemoryFormat::ChannelsLast);
  const Tensor columns = empty_beside(grad, {most * shape.taps() * shape.channels}, grad.scalar_type());
  const Tensor weight = column_ordered(arguments.weight, shape);
  const Tensor weight_rows = strided_view(
      weight,
      0,
      {shape.groups, shape.group_out_channels(), group_columns},
      {group_columns * shape.group_out_channels(), group_columns, 1});
  const bool needs_positions = gradients.offset || gradients.mask;
  const T* input = arguments.input.const_data_ptr<T>();
  T* column_data = static_cast<T*>(columns.mutable_data_ptr());
  // Like the weight's columns, [groups, O/groups, taps, C/groups]: one chunk's share and the sum of all.
  Tensor share, total;
  if (gradients.weight) {
    share = empty_beside(grad, {shape.groups, shape.group_out_channels(), group_columns}, grad.scalar_type());
    total = zeros_beside(grad, {weight_elements}, gradients.weight->scalar_type());
  }

  Chunk<Real> chunk = whole_call<Real>(arguments);
  for (; chunk.pixel_begin < pixels; chunk.pixel_begin += most) {
    chunk.pixel_count = smaller(most, pixels - chunk.pixel_begin);
    const int64_t elements = chunk.pixel_count * shape.taps() * shape.channels;
    const Tensor grad_rows = grouped_rows(rows, shape, chunk.pixel_begin, chunk.pixel_count);
    const Tensor chunk_columns = grouped_columns(columns, shape, chunk.pixel_count);
    if (needs_positions || gradients.input) {
      batched_product(grad_rows, weight_rows, chunk_columns);
    }
    if (needs_positions) {
      launcher.run(
          chunk.pixel_count * shape.offset_groups * shape.taps(),
          PositionGradients<T, Real>{
              chunk,
              input,
              column_data,
              gradients.offset ? gradients.offset->mutable_data_ptr<Real>() : nullptr,
              gradients.mask ? gradients.mask->mutable_data_ptr<Real>() : nullptr});
    }
    if (gradients.input) {
      launcher.run(
          elements, ScatterInputGradient<T, Real>{chunk, column_data, gradients.input->mutable_data_ptr<Real>()});
    }
    if (gradients.weight) {
      launcher.run(elements, SampleColumns<T, Real>{chunk, input, column_data});
      batched_product(torch::stable::transpose(grad_rows, 1, 2), chunk_columns, share);
      launcher.run(weight_elements, Accumulate<T, Real>{share.const_data_ptr<T>(), total.mutable_data_ptr<Real>()});
    }
  }
  if (gradients.weight) {
    Tensor target = torch::stable::view(
        *gradients.weight, {shape.groups, shape.group_out_channels(), shape.group_channels(), shape.taps()});
    const Tensor source =
        torch::stable::view(total, {shape.groups, shape.group_out_channels(), shape.taps(), shape.group_channels()});
    torch::stable::copy_(target, torch::stable::transpose(source, 2, 3));
  }
  if (gradients.bias) {
    Tensor target = *gradients.bias;
    const std::vector<int64_t> over_pixels{0};
    const Tensor flat = strided_view(rows, 0, {pixels, shape.out_channels}, {shape.out_channels, 1});
    torch::stable::copy_(target, torch::stable::sum(flat, over_pixels, false, target.scalar_type()));
  }
}

}  // namespace

void deform_conv2d_kernel(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    const Tensor& output) {
  dispatch_dtype(output.scalar_type(), [&](auto element) { forward<decltype(element)>(arguments, bias, output); });
}

void deform_conv2d_backward_kernel(
    const DeformConvArguments& arguments,
    const Tensor& grad,
    const DeformConvGradients& gradients) {
  dispatch_dtype(grad.scalar_type(), [&](auto element) { backward<decltype(element)>(arguments, grad, gradients); });
}

}  // namespace resnet_cuda

RESNET_CUDA_CUDA_KERNELS(m) {
  m.impl("deform_conv2d", TORCH_BOX(&resnet_cuda::deform_conv2d));
  m.impl("deform_conv2d_backward", TORCH_BOX(&resnet_cuda::deform_conv2d_backward));
}
