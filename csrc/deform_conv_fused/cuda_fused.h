// How forward and backward find their fused variants, which are compiled for sm_90a only (*_sm90a.cu), and whether they
// are asked for. They are not faster in all cases: each is off unless a variable of its own is 1 or, where a call that
// it does not fit is to be an error, require.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <type_traits>

#include "common/checks.h"
#include "common/launch.cuh"
#include "common/text.h"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_tap_slopes.cuh"
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

// Gives the weight's gradient as deform_conv2d_backward_kernel does, or nothing where it does not fit.
using FusedWeightGradientFunction = std::optional<Tensor> (*)(const DeformConvArguments& arguments, const Tensor& grad);

// Null where this library has no code for sm_90a.
extern FusedWeightGradientFunction fused_weight_gradient;

// A chunk of the backward for which the columns' gradient is computed.
struct ColumnGradientChunk {
  Chunk chunk;
  const void* rows;              // the output's gradient, [pixels, O]
  const void* input;             // [images, H, W, C], aligned to 16 bytes
  PositionGradientPlanes grads;  // are written
  void* columns;                 // becomes the columns' gradient, [groups][pixels][taps][C/groups]; or null
};
using ColumnGradientFunction = std::function<void(const ColumnGradientChunk&)>;

// The columns' gradient and the gradients of offsets and masks by one kernel.
struct FusedColumnGradientFunctions {
  // Whether shapes, dtype, layout and GPU fit.
  bool (*fits)(const Launcher& launcher, const DeformConvArguments& arguments);
  // Bytes beside the columns: per call, and per output pixel of a chunk.
  int64_t (*call_bytes)(const DeformConvShape& shape);
  int64_t (*pixel_bytes)(const DeformConvShape& shape);
  // For chunks of at most `most_pixels`; `launcher` outlives the function. `arguments` fit.
  ColumnGradientFunction (*make)(const Launcher& launcher, const DeformConvArguments& arguments, int64_t most_pixels);
};

// Null where this library has no code for sm_90a.
extern const FusedColumnGradientFunctions* fused_column_gradient;

// Calls `run`, which gives whether it fitted, if the environment variable asks for it; gives whether it was run. A
// `run` that takes a bool computes float32, too: in TF32 with tf32 or require-tf32, for which it is true. Where what
// `run` computes is not `needed`, it need not fit.
template <typename Run>
bool run_fused_if_asked(const char* variable, const Run& run, bool needed = true) {
  constexpr bool kTf32 = std::is_invocable_v<Run, bool>;
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0' || std::strcmp(value, "0") == 0) {
    return false;
  }
  const auto is = [value](const char* other) { return std::strcmp(value, other) == 0; };
  const bool tf32 = kTf32 && (is("tf32") || is("require-tf32"));
  const bool required = is("require") || (tf32 && is("require-tf32"));
  RESNET_CUDA_CHECK_ARGUMENT(
      required || tf32 || is("1"),
      "deform_conv2d",
      variable,
      join("'", value, "'"),
      kTf32 ? "0, 1, require, tf32 or require-tf32" : "0, 1 or require");
  bool done;
  if constexpr (kTf32) {
    done = run(tf32);
  } else {
    done = run();
  }
  RESNET_CUDA_CHECK_ARGUMENT(
      done || !required || !needed,
      "deform_conv2d",
      variable,
      join("'", value, "'"),
      "0 or 1 on this GPU, for these shapes, dtypes and layouts, or for a library without code for sm_90a");
  return done;
}

}  // namespace resnet_cuda
