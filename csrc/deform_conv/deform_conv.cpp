// Deformable convolution: argument checks, result shapes and allocation, once for every device.

#include "deform_conv/deform_conv.h"

#include "common/checks.h"

namespace resnet_cuda {
namespace {

constexpr const char* kOp = "deform_conv2d";

void check_at_least(const char* name, int64_t vertical, int64_t horizontal, int64_t minimum) {
  RESNET_CUDA_CHECK_ARGUMENT(
      vertical >= minimum && horizontal >= minimum,
      kOp,
      name,
      join("(", vertical, ", ", horizontal, ")"),
      join("at least ", minimum));
}

int64_t output_size(int64_t size, int64_t pad, int64_t dilation, int64_t kernel, int64_t stride) {
  const int64_t last_place = size + 2 * pad - dilation * (kernel - 1) - 1;  // of the kernel's first tap
  return last_place < 0 ? 0 : last_place / stride + 1;
}

// The geometry arguments, H, W and the kernel's sides stay below this, so that nothing computed from them overflows;
// kernels count rows and columns in 32 bits.
constexpr int64_t kLargest = int64_t{1} << 31;

// `shape` has the geometry; the result has all sizes.
DeformConvShape checked_shape(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    DeformConvShape shape) {
  check_at_least("stride", shape.stride_h, shape.stride_w, 1);
  check_at_least("padding", shape.pad_h, shape.pad_w, 0);
  check_at_least("dilation", shape.dilation_h, shape.dilation_w, 1);
  for (const int64_t value :
       {shape.stride_h, shape.stride_w, shape.pad_h, shape.pad_w, shape.dilation_h, shape.dilation_w}) {
    RESNET_CUDA_CHECK_ARGUMENT(value < kLargest, kOp, "stride, padding or dilation", value, "below 2^31");
  }
  check_input(kOp, input);
  const auto dtype = input.scalar_type();
  const auto position_dtype = compute_dtype(dtype);
  check_beside(kOp, "weight", weight, input, dtype, dtype);
  check_beside(kOp, "offset", offset, input, dtype, position_dtype);
  if (mask) {
    check_beside(kOp, "mask", *mask, input, dtype, position_dtype);
  }

  shape.batch = input.size(0);
  shape.channels = input.size(1);
  shape.height = input.size(2);
  shape.width = input.size(3);
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.channels > 0 && shape.height > 0 && shape.width > 0 && shape.height < kLargest && shape.width < kLargest,
      kOp,
      "input",
      shape_of(input),
      "of C, H, W >= 1, and H and W below 2^31");
  RESNET_CUDA_CHECK_ARGUMENT(weight.dim() == 4, kOp, "weight", shape_of(weight), "4-D, (O, C/groups, kh, kw)");
  shape.out_channels = weight.size(0);
  const int64_t group_channels = weight.size(1);
  shape.kernel_h = weight.size(2);
  shape.kernel_w = weight.size(3);
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.out_channels > 0 && group_channels > 0 && shape.kernel_h > 0 && shape.kernel_w > 0,
      kOp,
      "weight",
      shape_of(weight),
      "of O, C/groups, kh, kw >= 1");
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.kernel_h < kLargest && shape.kernel_w < kLargest, kOp, "weight", shape_of(weight), "of kh, kw below 2^31");
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.channels % group_channels == 0,
      kOp,
      "weight",
      shape_of(weight),
      join("(O, C/groups, kh, kw) with C = ", shape.channels, " of input"));
  shape.groups = shape.channels / group_channels;
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.out_channels % shape.groups == 0,
      kOp,
      "weight",
      shape_of(weight),
      join("of O divisible by groups = ", shape.channels, "/", group_channels));

  shape.out_height = output_size(shape.height, shape.pad_h, shape.dilation_h, shape.kernel_h, shape.stride_h);
  shape.out_width = output_size(shape.width, shape.pad_w, shape.dilation_w, shape.kernel_w, shape.stride_w);
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.out_height > 0 && shape.out_width > 0,
      kOp,
      "input",
      size_and_output(shape),
      join(
          "large enough for kernel ",
          shape.kernel_h,
          "x",
          shape.kernel_w,
          ", padding (",
          shape.pad_h,
          ", ",
          shape.pad_w,
          "), dilation (",
          shape.dilation_h,
          ", ",
          shape.dilation_w,
          ")"));

  const auto offset_rule = [&] {
    return join(
        "(N, 2*G*kh*kw, Ho, Wo) with N = ",
        shape.batch,
        ", kh*kw = ",
        shape.taps(),
        ", Ho = ",
        shape.out_height,
        ", Wo = ",
        shape.out_width,
        ", G dividing C = ",
        shape.channels);
  };
  RESNET_CUDA_CHECK_ARGUMENT(offset.dim() == 4, kOp, "offset", shape_of(offset), offset_rule());
  shape.offset_groups = offset.size(1) / (2 * shape.taps());
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.offset_groups > 0 && offset.size(1) == 2 * shape.taps() * shape.offset_groups &&
          shape.channels % shape.offset_groups == 0 && offset.size(0) == shape.batch &&
          offset.size(2) == shape.out_height && offset.size(3) == shape.out_width,
      kOp,
      "offset",
      shape_of(offset),
      offset_rule());
  if (mask) {
    check_shape(
        kOp,
        "mask",
        *mask,
        "(N, G*kh*kw, Ho, Wo)",
        {shape.batch, shape.offset_groups * shape.taps(), shape.out_height, shape.out_width});
  }
  return shape;
}

DeformConvShape
geometry(int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w) {
  DeformConvShape shape{};
  shape.stride_h = stride_h, shape.stride_w = stride_w;
  shape.pad_h = pad_h, shape.pad_w = pad_w;
  shape.dilation_h = dilation_h, shape.dilation_w = dilation_w;
  return shape;
}

// Copied only if it is neither contiguous nor channels_last.
Tensor dense_in_own_layout(const Tensor& tensor) {
  return as_dense(tensor, output_memory_format(tensor));
}

DeformConvArguments dense_arguments(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    const DeformConvShape& shape) {
  DeformConvArguments arguments{
      shape, dense_in_own_layout(input), dense_in_own_layout(weight), dense_in_own_layout(offset), std::nullopt};
  if (mask) {
    arguments.mask = dense_in_own_layout(*mask);
  }
  return arguments;
}

// The gradients of an empty batch.
DeformConvGradients zero_gradients(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    const DeformConvNeeds& needs) {
  const auto zeros_like = [&](bool needed, const Tensor& tensor) {
    return needed ? std::optional<Tensor>(zeros_beside(input, size_of(tensor), tensor.scalar_type())) : std::nullopt;
  };
  DeformConvGradients gradients;
  gradients.input = zeros_like(needs.input, input);
  gradients.weight = zeros_like(needs.weight, weight);
  gradients.offset = zeros_like(needs.offset, offset);
  if (needs.mask) {
    gradients.mask = zeros_like(true, *mask);
  }
  if (needs.bias) {
    gradients.bias = zeros_beside(input, {weight.size(0)}, input.scalar_type());
  }
  return gradients;
}

}  // namespace

template <bool kRelu>
Tensor deform_conv2d_forward(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    const std::optional<Tensor>& bias,
    int64_t stride_h,
    int64_t stride_w,
    int64_t pad_h,
    int64_t pad_w,
    int64_t dilation_h,
    int64_t dilation_w) {
  const DeformConvShape shape =
      checked_shape(input, weight, offset, mask, geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w));
  if (bias) {
    check_beside(kOp, "bias", *bias, input, input.scalar_type(), input.scalar_type());
    check_shape(kOp, "bias", *bias, "(O,)", {shape.out_channels});
  }
  Tensor output = empty_beside(
      input,
      {shape.batch, shape.out_channels, shape.out_height, shape.out_width},
      input.scalar_type(),
      output_memory_format(input));
  if (output.numel() == 0) {
    return output;
  }
  std::optional<Tensor> dense_bias;
  if (bias) {
    dense_bias = as_dense(*bias, MemoryFormat::Contiguous);
  }
  deform_conv2d_kernel(dense_arguments(input, weight, offset, mask, shape), dense_bias, kRelu, output);
  return output;
}

template decltype(deform_conv2d_forward<false>) deform_conv2d_forward<false>;
template decltype(deform_conv2d_forward<true>) deform_conv2d_forward<true>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward(
    const Tensor& grad,
    const Tensor& input,
    const Tensor& weight,
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    int64_t stride_h,
    int64_t stride_w,
    int64_t pad_h,
    int64_t pad_w,
    int64_t dilation_h,
    int64_t dilation_w,
    bool need_input,
    bool need_weight,
    bool need_offset,
    bool need_mask,
    bool need_bias) {
  const DeformConvShape shape =
      checked_shape(input, weight, offset, mask, geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w));
  check_beside(kOp, "grad", grad, input, input.scalar_type(), input.scalar_type());
  check_shape(
      kOp, "grad", grad, "(N, O, Ho, Wo)", {shape.batch, shape.out_channels, shape.out_height, shape.out_width});
  const DeformConvNeeds needs{need_input, need_weight, need_offset, need_mask && mask.has_value(), need_bias};
  DeformConvGradients gradients;
  if (grad.numel() == 0) {
    gradients = zero_gradients(input, weight, offset, mask, needs);
  } else if (needs.input || needs.weight || needs.offset || needs.mask || needs.bias) {
    gradients = deform_conv2d_backward_kernel(
        dense_arguments(input, weight, offset, mask, shape), dense_in_own_layout(grad), needs);
  }

  const auto result = [&](const std::optional<Tensor>& gradient, ScalarType dtype, MemoryFormat format) {
    return gradient ? as_dense(*gradient, dtype, format) : empty_beside(input, {0}, input.scalar_type());
  };
  return {
      result(gradients.input, input.scalar_type(), output_memory_format(input)),
      result(gradients.weight, weight.scalar_type(), MemoryFormat::Contiguous),
      result(gradients.offset, offset.scalar_type(), output_memory_format(offset)),
      result(
          gradients.mask,
          mask ? mask->scalar_type() : input.scalar_type(),
          mask ? output_memory_format(*mask) : MemoryFormat::Contiguous),
      result(gradients.bias, input.scalar_type(), MemoryFormat::Contiguous)};
}

}  // namespace resnet_cuda
