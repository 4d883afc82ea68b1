// The interface between checks and allocation (conv2d_winograd_cpu.cpp) and the division of the work among threads
// (conv2d_winograd_parallel_cpu.cpp). There are kernels for the CPU only.
#pragma once

#include <optional>

#include "common/tensors.h"
#include "conv2d_winograd/conv2d_winograd_math.h"

namespace resnet_cuda {

// Writes `output`, [N, O, Ho, Wo], channels_last as input and residual are; every size is at least 1. `weight` is
// [36, panels, C, 32] and `bias` [O], both float32 and contiguous. `residual` has output's shape and dtype.
void conv2d_winograd_kernel(
    const WinogradShape& shape,
    const Tensor& input,
    const Tensor& weight,
    const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output);

// The operator, as registered; see csrc/registration.cpp for the schema.
Tensor conv2d_winograd(
    const Tensor& input,
    const Tensor& weight,
    int64_t out_channels,
    const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual,
    bool relu,
    int64_t pad_h,
    int64_t pad_w);

}  // namespace resnet_cuda
