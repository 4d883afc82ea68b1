// How the forward finds its fused variant, which is compiled for sm_90a only (deform_conv_fused_sm90a.cu).
#pragma once

#include <optional>

#include "deform_conv/deform_conv.h"

namespace resnet_cuda {

// Writes `output` as deform_conv2d_kernel does and gives true, or false where shapes, dtype, alignment or GPU do not
// fit. `tf32`: float32 fits, too, and is rounded to TF32 where it is multiplied.
using FusedForwardFunction = bool (*)(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    bool tf32,
    const Tensor& output);

// Null where this library has no code for sm_90a.
extern FusedForwardFunction fused_forward;

}  // namespace resnet_cuda
