// Winograd's convolution with bias, residual and ReLU: argument checks and allocation; registers CPU.

#include "common/checks.h"
#include "conv2d_winograd/conv2d_winograd.h"

namespace resnet_cuda {
namespace {

constexpr const char* kOp = "conv2d_winograd";

// H, W and O stay below this, so that nothing computed from them overflows.
constexpr int64_t kLargest = int64_t{1} << 31;

WinogradShape checked_shape(
    const Tensor& input,
    const Tensor& weight,
    int64_t out_channels,
    const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual,
    int64_t pad_h,
    int64_t pad_w) {
  const auto dtype = input.scalar_type();
  RESNET_CUDA_CHECK_ARGUMENT(
      dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
      kOp,
      "input",
      dtype_name(dtype),
      "torch.float32, torch.float16 or torch.bfloat16");
  check_input(kOp, input);
  RESNET_CUDA_CHECK_ARGUMENT(
      pad_h >= 0 && pad_h <= 2 && pad_w >= 0 && pad_w <= 2,
      kOp,
      "padding",
      join("(", pad_h, ", ", pad_w, ")"),
      "0, 1 or 2");
  RESNET_CUDA_CHECK_ARGUMENT(
      out_channels > 0 && out_channels < kLargest, kOp, "out_channels", out_channels, "at least 1 and below 2^31");
  WinogradShape shape{};
  shape.batch = input.size(0);
  shape.channels = input.size(1);
  shape.height = input.size(2);
  shape.width = input.size(3);
  shape.out_channels = out_channels;
  shape.pad_h = pad_h;
  shape.pad_w = pad_w;
  shape.out_height = shape.height + 2 * pad_h - 2;
  shape.out_width = shape.width + 2 * pad_w - 2;
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.channels > 0 && shape.height > 0 && shape.width > 0 && shape.height < kLargest && shape.width < kLargest,
      kOp,
      "input",
      shape_of(input),
      "of C, H, W >= 1, and H and W below 2^31");
  RESNET_CUDA_CHECK_ARGUMENT(
      shape.out_height > 0 && shape.out_width > 0,
      kOp,
      "input",
      join("of size ", shape.height, "x", shape.width),
      join("large enough for kernel 3x3 with padding (", pad_h, ", ", pad_w, ")"));
  check_beside(kOp, "weight", weight, input, ScalarType::Float, ScalarType::Float);
  check_shape(
      kOp,
      "weight",
      weight,
      "as winograd_weight returns it, (36, ceil(O/32), C, 32)",
      {kPatchPixels, shape.panels(), shape.channels, kWinogradPanel});
  if (bias) {
    check_beside(kOp, "bias", *bias, input, ScalarType::Float, ScalarType::Float);
    check_shape(kOp, "bias", *bias, "(O,)", {out_channels});
  }
  if (residual) {
    check_beside(kOp, "residual", *residual, input, dtype, dtype);
    check_shape(
        kOp,
        "residual",
        *residual,
        "of the result's shape, (N, O, Ho, Wo)",
        {shape.batch, out_channels, shape.out_height, shape.out_width});
  }
  return shape;
}

std::optional<Tensor> dense(const std::optional<Tensor>& tensor, MemoryFormat format) {
  return tensor ? std::optional<Tensor>(as_dense(*tensor, format)) : std::nullopt;
}

}  // namespace

Tensor conv2d_winograd(
    const Tensor& input,
    const Tensor& weight,
    int64_t out_channels,
    const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual,
    bool relu,
    int64_t pad_h,
    int64_t pad_w) {
  const WinogradShape shape = checked_shape(input, weight, out_channels, bias, residual, pad_h, pad_w);
  const Tensor output = empty_beside(
      input,
      {shape.batch, out_channels, shape.out_height, shape.out_width},
      input.scalar_type(),
      MemoryFormat::ChannelsLast);
  if (output.numel() > 0) {
    conv2d_winograd_kernel(
        shape,
        as_dense(input, MemoryFormat::ChannelsLast),
        as_dense(weight, MemoryFormat::Contiguous),
        dense(bias, MemoryFormat::Contiguous),
        dense(residual, MemoryFormat::ChannelsLast),
        relu,
        output);
  }
  return output;
}

}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda, CPU, m) {
  m.impl("conv2d_winograd", RESNET_CUDA_BOX(&resnet_cuda::conv2d_winograd));
}
