// The CPU kernels' interface: what frozen_bn_cpu.cpp hands to the loops, which are compiled once per instruction set.
#pragma once

#include <cstdint>

#include "common/storage_types.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

struct ForwardTask {
  int64_t channels;
  int64_t plane;  // elements of a channel that lie together: H*W, or 1 for channels_last
  const void* input;
  const void* scale;     // Real [C]
  const void* shift;     // Real [C]
  const void* residual;  // or null
  void* output;
  bool relu;
  bool stream;  // store past the caches; output begins a cache line
};

struct BackwardTask {
  int64_t channels;
  int64_t plane;
  const void* grad;
  const void* scale;    // Real [C]
  const void* output;   // or null where there was no ReLU
  void* grad_input;     // or null
  void* grad_residual;  // or null
  bool stream;          // store past the caches; both begin a cache line
};

// Each takes the elements [begin, end) of the dense tensors.
struct Kernels {
  void (*forward)(const ForwardTask&, int64_t begin, int64_t end);
  void (*backward)(const BackwardTask&, int64_t begin, int64_t end);
};

const Kernels& portable_kernels(Storage storage);
const Kernels& avx2_kernels(Storage storage);
const Kernels& avx512_kernels(Storage storage);
// bfloat16 alone, by the instructions that round to it.
const Kernels& avx512_bf16_kernels();

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
