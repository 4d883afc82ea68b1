// The interface between checks and allocation (deform_conv.cpp) and a device's kernels (deform_conv_cpu.cpp and
// deform_conv_backward_cpu.cpp, deform_conv_cuda.cu and deform_conv_backward_cuda.cu). Each library links
// deform_conv.cpp with the kernels of one device.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "common/tensors.h"
#include "common/text.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Tensors of one call, checked and dense: each contiguous or channels_last, copied only if it was neither.
struct DeformConvArguments {
  DeformConvShape shape;
  Tensor input;                // [N, C, H, W]
  Tensor weight;               // [O, C/groups, kh, kw], input's dtype
  Tensor offset;               // [N, 2*G*K, Ho, Wo], input's dtype or float32
  std::optional<Tensor> mask;  // [N, G*K, Ho, Wo], input's dtype or float32
};

// For the texts of errors about the output's size.
inline std::string size_and_output(const DeformConvShape& shape) {
  return join(
      "of size ",
      shape.height,
      "x",
      shape.width,
      ", which gives an output of ",
      shape.out_height,
      "x",
      shape.out_width);
}

// Writes `output` [N, O, Ho, Wo], input's dtype, contiguous or channels_last; every size is at least 1. `bias` is [O],
// input's dtype, contiguous. `relu`: clamps at 0; NaN stays NaN.
void deform_conv2d_kernel(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output);

// The gradients that are needed; at least one.
struct DeformConvNeeds {
  bool input, weight, offset, mask, bias;
};

// The gradients that were needed, each with the size of its argument, in any floating dtype and layout.
struct DeformConvGradients {
  std::optional<Tensor> input;
  std::optional<Tensor> weight;
  std::optional<Tensor> offset;
  std::optional<Tensor> mask;
  std::optional<Tensor> bias;
};

// `grad` [N, O, Ho, Wo], input's dtype, contiguous or channels_last; every size is at least 1.
DeformConvGradients
deform_conv2d_backward_kernel(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvNeeds& needs);

// The operators, as registered; see csrc/registration.cpp for the schemas.

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
    int64_t dilation_w);

// Names of their own, since RESNET_CUDA_BOX puts them into the texts of errors.
inline constexpr auto& deform_conv2d = deform_conv2d_forward<false>;
inline constexpr auto& deform_conv2d_relu = deform_conv2d_forward<true>;

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
    bool need_bias);

}  // namespace resnet_cuda
