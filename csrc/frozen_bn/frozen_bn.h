// The interface between checks and allocation (frozen_bn.cpp) and a device's kernels (frozen_bn_cpu.cpp,
// frozen_bn_cuda.cu).
#pragma once

#include <optional>
#include <tuple>

#include "common/tensors.h"

namespace resnet_cuda {

// All tensors of one call are dense in one layout. The channel of element i is (i / plane) % channels: plane is H*W for
// contiguous tensors and 1 for channels_last ones.
struct FrozenBnLayout {
  int64_t elements;
  int64_t channels;
  int64_t plane;
};

// A layer's constants, each [C], dense and Real: float64 for an input of float64, else float32. Two modes. Without
// statistics: weight, bias are scale, shift. Else: BatchNorm's four buffers.
struct FrozenBnConstants {
  struct Statistics {
    Tensor mean;
    Tensor variance;
    double eps;
  };

  Tensor weight;
  Tensor bias;
  std::optional<Statistics> statistics;
  std::optional<Tensor> scale;  // with statistics only: output, the scale, for the backward
};

// `output` may be `input` itself.
void frozen_bn_relu_kernel(
    const FrozenBnLayout& layout,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output);

// `output` is the forward's result where it ended in a ReLU. Gradients that are not needed are absent.
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

// frozen_bn_relu from the layer's four buffers instead of scale and shift.
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
