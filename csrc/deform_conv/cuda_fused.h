// How forward and backward find their fused variants, which are compiled for sm_90a only (*_sm90a.cu).
#pragma once

#include <functional>
#include <optional>

#include "common/launch.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_tap_slopes.cuh"
#include "deform_conv/deform_conv.h"

namespace resnet_cuda {

// Writes `output` as deform_conv2d_kernel does and gives true, or false where shapes, dtype, layout or GPU do not fit.
using FusedForwardFunction =
    bool (*)(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, bool relu, const Tensor& output);

// Null where this library has no code for sm_90a.
extern FusedForwardFunction fused_forward;

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

}  // namespace resnet_cuda
