// Winograd's convolution on a CPU, for one element type and one instruction set: strips, and the matrix products
// between the two transforms.
#pragma once

#include "common/element_types.h"
#include "common/gemm_micro.h"
#include "conv2d_winograd/cpu_tiles.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using conv2d_winograd_cpu::kPanelsAtOnce;
using conv2d_winograd_cpu::kProductRow;
using conv2d_winograd_cpu::kTileStep;
using conv2d_winograd_cpu::Part;

static_assert(kTileStep % kBlockRows == 0 && kWinogradPanel % (kBlockVectors * kLanes<float>) == 0);

// One panel's product with all tiles of a strip. Meanwhile `next_weight`, the panel that is multiplied after it, comes
// into the second-level cache, one line per step: hardware prefetchers stop at the end of a page and of a panel.
RESNET_CUDA_INLINE void multiply_panel(
    int64_t tiles,
    int64_t channels,
    const float* patches,
    const float* weight,
    const float* next_weight,
    float* products) {
  constexpr int64_t kColumns = kBlockVectors * kLanes<float>;
  const int64_t row = conv2d_winograd_cpu::row_stride(channels);
  const auto* line = reinterpret_cast<const char*>(next_weight);
  const char* end = line + channels * kWinogradPanel * static_cast<int64_t>(sizeof(float));
  for (int64_t column = 0; column < kWinogradPanel; column += kColumns) {
    for (int64_t tile = 0; tile < tiles; tile += kBlockRows) {
      const auto multiply = [&](auto prefetch) __attribute__((always_inline)) {
        multiply_vectors<float, Product::kStored, kBlockVectors>(
            channels,
            patches + tile * row,
            row,
            1,
            weight + column,
            kWinogradPanel,
            products + tile * kProductRow + column,
            kProductRow,
            prefetch);
      };
      if (line < end) {
        multiply(PrefetchLines{line});
        line += channels * kCacheLine;
      } else {
        multiply(NoPrefetch{});
      }
    }
  }
}

// products[36][tiles][kProductRow] = patches[36][tiles][C] times the weights of panels [panel_begin, panel_end). Panel
// `panel_after` is what the thread multiplies then.
RESNET_CUDA_INLINE void multiply_panels(
    const Task& task,
    int64_t tiles,
    int64_t panel_begin,
    int64_t panel_end,
    int64_t panel_after,
    const float* patches,
    float* products) {
  const int64_t channels = task.shape.channels;
  const int64_t panel_size = channels * kWinogradPanel;
  for (int element = 0; element < kPatchPixels; ++element) {
    const float* weights = task.weight + element * task.shape.panels() * panel_size;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const float* next = weights + (panel + 1) * panel_size;
      if (panel + 1 == panel_end) {
        next = element + 1 < kPatchPixels ? weights + (task.shape.panels() + panel_begin) * panel_size
                                          : task.weight + panel_after * panel_size;
      }
      multiply_panel(
          tiles,
          channels,
          patches,
          weights + panel * panel_size,
          next,
          products + (panel - panel_begin) * kWinogradPanel);
    }
    patches += conv2d_winograd_cpu::patches_matrix(task);
    products += conv2d_winograd_cpu::products_matrix(task);
  }
}

// Tiles of each strip but the last, so that none is much smaller: every strip reads all the weights.
RESNET_CUDA_INLINE int64_t even_strip(const Task& task, int64_t tiles) {
  const int64_t strips = ceil_div(tiles, task.strip_tiles);
  return ceil_div(ceil_div(tiles, strips), kTileStep) * kTileStep;
}

template <typename T>
void forward(const Task& task, const Part& part, float* workspace) {
  const int64_t row = conv2d_winograd_cpu::row_stride(task.shape.channels);
  const int64_t patches_matrix = conv2d_winograd_cpu::patches_matrix(task);
  float* patches = workspace;
  float* products = workspace + kPatchPixels * patches_matrix;
  const int64_t strip = even_strip(task, part.tile_end - part.tile_begin);
  for (int64_t begin = part.tile_begin; begin < part.tile_end; begin += strip) {
    const int64_t end = smaller(begin + strip, part.tile_end);
    const int64_t tiles = ceil_div(end - begin, kBlockRows) * kBlockRows;
    transform_patches<T>(task, begin, end, patches);
    // Rows beyond the last tile are multiplied too, but not written to the output.
    for (int element = 0; element < kPatchPixels && end - begin < tiles; ++element) {
      memset(
          patches + element * patches_matrix + (end - begin) * row, 0, sizeof(float) * (tiles - (end - begin)) * row);
    }
    for (int64_t panel = part.panel_begin; panel < part.panel_end; panel += kPanelsAtOnce) {
      const int64_t panel_end = smaller(panel + kPanelsAtOnce, part.panel_end);
      const int64_t panel_after = panel_end < part.panel_end ? panel_end : part.panel_begin;
      multiply_panels(task, tiles, panel, panel_end, panel_after, patches, products);
      write_tiles<T>(
          task,
          begin,
          end,
          panel * kWinogradPanel,
          smaller(panel_end * kWinogradPanel, task.shape.out_channels),
          products);
    }
  }
}

template <typename T>
constexpr conv2d_winograd_cpu::Kernels kKernels = {forward<T>};

static inline const conv2d_winograd_cpu::Kernels* kernels_for(Storage storage) {
  return with_element(storage, [](auto element) -> const conv2d_winograd_cpu::Kernels* {
    if constexpr (std::is_same_v<decltype(element), double>) {
      return nullptr;
    } else {
      return &kKernels<decltype(element)>;
    }
  });
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
