// The interface between conv2d_winograd_parallel_cpu.cpp (threads, allocation) and the loops, which are compiled once
// per instruction set. No torch, no allocation.
//
// A thread processes one strip of tiles at a time. First it transforms all channels of the strip's patches. Then, for a
// few panels of output channels at a time, it computes 36 matrix products, (tiles, C) times (C, outputs), one for each
// element of a transformed patch, and transforms the products back. So intermediate results stay in the thread's
// caches, and the weights are read once per strip.
#pragma once

#include <cstdint>

#include "common/storage_types.h"
#include "conv2d_winograd/conv2d_winograd_math.h"

namespace resnet_cuda {
namespace conv2d_winograd_cpu {

// Tiles come in multiples of this, which is one of every instruction set's rows per register block.
constexpr int64_t kTileStep = 12;
// Panels of output channels whose products exist at a time.
constexpr int64_t kPanelsAtOnce = 2;

struct Task {
  WinogradShape shape;
  const void* input;     // [N, H, W, C]
  const float* weight;   // [36][panels][C][32]
  const float* bias;     // [O] or null
  const void* residual;  // [N, Ho, Wo, O] or null
  void* output;          // [N, Ho, Wo, O]
  const void* zeros;     // [C], input's type: read for a pixel outside the image
  bool relu;
  int64_t strip_tiles;  // at most so many in a strip; a multiple of kTileStep
};

// Tiles, counted over all images, and panels of output channels.
struct Part {
  int64_t tile_begin, tile_end;
  int64_t panel_begin, panel_end;
};

// Rows of a transformed strip: [36][tiles][row], and the products [36][tiles][panel columns]. Between rows is a cache
// line, and the 36 matrices begin in different lines of a page, since one loop writes to all of them: at distances of
// large powers of 2 there would be conflict misses.
RESNET_CUDA_HOST_DEVICE int64_t row_stride(int64_t channels) {
  return ceil_div(channels, 16) * 16 + 16;
}
RESNET_CUDA_HOST_DEVICE int64_t matrix_stride(int64_t elements) {
  constexpr int64_t kPage = 1024;  // elements
  return ceil_div(elements, kPage) * kPage + 80;
}

constexpr int64_t kProductRow = kPanelsAtOnce * kWinogradPanel;

// Elements of the two.
RESNET_CUDA_HOST_DEVICE int64_t patches_matrix(const Task& task) {
  return matrix_stride(task.strip_tiles * row_stride(task.shape.channels));
}
RESNET_CUDA_HOST_DEVICE int64_t products_matrix(const Task& task) {
  return matrix_stride(task.strip_tiles * kProductRow);
}
RESNET_CUDA_HOST_DEVICE int64_t workspace_elements(const Task& task) {
  return kPatchPixels * (patches_matrix(task) + products_matrix(task));
}

// One instruction set's loops for one element type. `workspace` has workspace_elements(), is aligned to a cache line
// and belongs to one thread.
struct Kernels {
  void (*forward)(const Task& task, const Part& part, float* workspace);
};

// Null for float64.
const Kernels* portable_kernels(Storage storage);
const Kernels* avx2_kernels(Storage storage);
const Kernels* avx512_kernels(Storage storage);
const Kernels* avx512_bf16_kernels(Storage storage);

}  // namespace conv2d_winograd_cpu
}  // namespace resnet_cuda
