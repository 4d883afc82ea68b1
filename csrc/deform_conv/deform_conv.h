// What the checks and allocations (deform_conv.cpp) hand to the kernels of a device (deform_conv_cpu.cpp,
// deform_conv_cuda.cu). Each library links deform_conv.cpp with the kernels of one device.
#pragma once

#include <optional>
#include <tuple>

#include "common/tensors.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Tensors of one call, checked and laid out. `Real` below is float64 for float64 arguments, else float32.
struct DeformConvArguments {
  DeformConvShape shape;
  Tensor input;                // [N, C, H, W], channels_last
  Tensor weight;               // [O, C/groups, kh, kw], contiguous, input's dtype
  Tensor offset;               // [N, 2*G*K, Ho, Wo], Real, contiguous or channels_last
  std::optional<Tensor> mask;  // [N, G*K, Ho, Wo], Real, contiguous or channels_last
};

// Writes `output` [N, O, Ho, Wo], input's dtype, contiguous or channels_last; every size is at least 1.
void deform_conv2d_kernel(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    const Tensor& output);

// Where the gradients go; those that are not asked for are absent. All accumulate in Real and are given zeroed.
struct DeformConvGradients {
  std::optional<Tensor> input;   // [N, C, H, W], Real, channels_last
  std::optional<Tensor> weight;  // [O, C/groups, kh, kw], Real, contiguous
  std::optional<Tensor> offset;  // as arguments.offset
  std::optional<Tensor> mask;    // as arguments.mask
  std::optional<Tensor> bias;    // [O], Real
};

// `grad` [N, O, Ho, Wo], input's dtype, contiguous or channels_last; every size is at least 1.
void deform_conv2d_backward_kernel(
    const DeformConvArguments& arguments,
    const Tensor& grad,
    const DeformConvGradients& gradients);

// The operators, as registered; see csrc/registration.cpp for the schemas.
Tensor deform_conv2d(
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
