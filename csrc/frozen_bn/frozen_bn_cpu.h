// The CPU kernels' interface: what frozen_bn_cpu.cpp hands to the loops, which are compiled once per instruction set.
#pragma once

#include <cstdint>

#include "common/storage_types.h"

namespace resnet_cuda {
namespace frozen_bn_cpu {

// Reads four arrays of C Real numbers, writes two.
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
  int64_t plane;  // elements of a channel that lie together: H*W, or 1 for channels_last
  const void* input;
  const void* scale;     // Real [C], in channels_last as `order` leaves them
  const void* shift;     // likewise
  const void* residual;  // or null
  void* output;
  bool relu;
  bool stream;  // store past the caches; output begins a cache line, and so does each pixel in channels_last
};

struct BackwardTask {
  int64_t channels;
  int64_t plane;
  const void* grad;
  const void* scale;    // as above
  const void* output;   // or null where there was no ReLU
  void* grad_input;     // or null
  void* grad_residual;  // or null
  bool stream;          // likewise, for both results
};

// Each takes the elements [begin, end) of the dense tensors, whole pixels in channels_last.
struct Kernels {
  void (*forward)(const ForwardTask&, int64_t begin, int64_t end);
  void (*backward)(const BackwardTask&, int64_t begin, int64_t end);
  // Scale and shift of all channels from the layer's buffers.
  void (*constants)(const ConstantsTask&);
  // Writes the constants of all channels in the order in which the loops of channels_last read them; null where that is
  // the order they have.
  void (*order)(const void* constants, int64_t channels, void* ordered);
};

const Kernels& portable_kernels(Storage storage);
const Kernels& avx2_kernels(Storage storage);
const Kernels& avx512_kernels(Storage storage);
// bfloat16 alone, by the instructions that round to it.
const Kernels& avx512_bf16_kernels();

}  // namespace frozen_bn_cpu
}  // namespace resnet_cuda
