// How forward and backward find their fused variants, which are compiled for sm_90a only (deform_conv_fused_sm90a.cu,
// deform_conv_weight_gradient_sm90a.cu), and whether they are asked for. No GPU has run them yet: each is off unless a
// variable of its own is 1 or, where a call that it does not fit is to be an error, require.
#pragma once

#include <cstdlib>
#include <cstring>
#include <optional>

#include "common/checks.h"
#include "common/text.h"
#include "deform_conv/deform_conv.h"

namespace resnet_cuda {

// Writes `output` as deform_conv2d_kernel does and gives true, or false where shapes, dtype, layout or GPU do not fit.
using FusedForwardFunction =
    bool (*)(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, bool relu, const Tensor& output);

// Null where this library has no code for sm_90a.
extern FusedForwardFunction fused_forward;

// Gives the weight's gradient as deform_conv2d_backward_kernel does, or nothing where it does not fit.
using FusedWeightGradientFunction = std::optional<Tensor> (*)(const DeformConvArguments& arguments, const Tensor& grad);

// Null where this library has no code for sm_90a.
extern FusedWeightGradientFunction fused_weight_gradient;

// Calls `run`, which gives whether it fitted, if the environment variable asks for it; gives whether it was run.
template <typename Run>
bool run_fused_if_asked(const char* variable, const Run& run) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0' || std::strcmp(value, "0") == 0) {
    return false;
  }
  const bool required = std::strcmp(value, "require") == 0;
  RESNET_CUDA_CHECK_ARGUMENT(
      required || std::strcmp(value, "1") == 0, "deform_conv2d", variable, join("'", value, "'"), "0, 1 or require");
  const bool done = run();
  RESNET_CUDA_CHECK_ARGUMENT(
      done || !required,
      "deform_conv2d",
      variable,
      "'require'",
      "0 or 1 on this GPU, for these shapes, dtypes and layouts, or for a library without code for sm_90a");
  return done;
}

}  // namespace resnet_cuda
