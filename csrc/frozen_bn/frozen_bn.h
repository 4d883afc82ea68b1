// What the checks and allocations (frozen_bn.cpp) hand to the kernels of a device (frozen_bn_cpu.cpp,
// frozen_bn_cuda.cu).
#pragma once

#include <optional>
#include <tuple>

#include "common/tensors.h"

namespace resnet_cuda {

// All tensors of one call are dense in one layout. Channel c of element i is (i / plane) % channels: plane is H*W for
// contiguous tensors and 1 for channels_last ones.
struct FrozenBnLayout {
  int64_t elements;
  int64_t channels;
  int64_t plane;
};

// What a channel is normalised with, each [C], dense and Real: float64 beside float64, else float32. Without statistics
// `weight` and `bias` are scale and shift themselves.
struct FrozenBnConstants {
  struct Statistics {
    Tensor mean;
    Tensor variance;
    double eps;
  };

  Tensor weight;
  Tensor bias;
  std::optional<Statistics> statistics;
  std::optional<Tensor> scale;  // beside statistics only: the scale is written here, for the backward
};

// `output` may be `input` itself.
void frozen_bn_relu_kernel(
    const FrozenBnLayout& layout,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output);

// `output` is the forward's result where it ended in a ReLU. Gradients that are not asked for are absent.
void frozen_bn_relu_backward_kernel(
    const FrozenBnLayout& layout,
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    const std::optional<Tensor>& grad_input,
    const std::optional<Tensor>& grad_residual);

// The operators, as registered; see csrc/registration.cpp for the schemas.
Tensor frozen_bn_relu(
    const Tensor& input,
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual,
    bool relu);

void frozen_bn_relu_(
    const Tensor& input,
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual,
    bool relu);

// The same with the layer's four buffers instead of scale and shift, as they are at the call.
std::tuple<Tensor, Tensor> frozen_batch_norm(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& bias,
    const Tensor& running_mean,
    const Tensor& running_var,
    double eps,
    const std::optional<Tensor>& residual,
    bool relu,
    bool need_scale);

Tensor frozen_batch_norm_(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& bias,
    const Tensor& running_mean,
    const Tensor& running_var,
    double eps,
    const std::optional<Tensor>& residual,
    bool relu,
    bool need_scale);

std::tuple<Tensor, Tensor> frozen_bn_relu_backward(
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    bool need_input,
    bool need_residual);

}  // namespace resnet_cuda
