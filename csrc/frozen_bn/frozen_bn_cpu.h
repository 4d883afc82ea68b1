// The interface between frozen_bn_cpu.cpp and the loops, which are compiled once per instruction set.
#pragma once

#include <cstdint>

#include "common/storage_types.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

// Scale and shift from a layer's buffers: arrays of C Real numbers.
struct ConstantsTask {
  int64_t channels;
  const void* weight;
  const void* bias;
  const void* mean;
  const void* variance;
  double eps;
  void* scale;
  void* shift;
};

struct ForwardTask {
  int64_t channels;
  int64_t plane;  // adjacent elements of a channel: H*W, or 1 for channels_last
  const void* input;
  const void* scale;     // Real [C], for channels_last deinterleaved
  const void* shift;     // Real [C], for channels_last deinterleaved
  const void* residual;  // or null
  void* output;
  bool relu;
  bool stream;  // streaming stores; output begins at a cache line, and so does each pixel in channels_last
};

struct BackwardTask {
  int64_t channels;
  int64_t plane;
  const void* grad;
  const void* scale;    // Real [C], for channels_last deinterleaved
  const void* output;   // or null where there was no ReLU
  void* grad_input;     // or null
  void* grad_residual;  // or null
  bool stream;          // streaming stores for both results, which begin as ForwardTask::stream requires
};

// forward and backward process the elements [begin, end) of the dense tensors, whole pixels in channels_last.
struct Kernels {
  void (*forward)(const ForwardTask&, int64_t begin, int64_t end);
  void (*backward)(const BackwardTask&, int64_t begin, int64_t end);
  void (*constants)(const ConstantsTask&);
  // Copies one array of constants into the order in which the loops over channels_last read it, for the element types
  // whose vector pairs are even and odd elements (common/vec_pair.h); null for the others.
  void (*deinterleave)(const void* constants, int64_t channels, void* deinterleaved);
};

const Kernels* portable_kernels(Storage storage);
const Kernels* avx2_kernels(Storage storage);
const Kernels* avx512_kernels(Storage storage);
// With the instructions that round to bfloat16: for that type alone, null for other types.
const Kernels* avx512_bf16_kernels(Storage storage);

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
