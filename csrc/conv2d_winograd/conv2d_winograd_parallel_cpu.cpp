// Winograd's convolution on the CPU: how a call is divided among threads, and their memory.

#include <algorithm>

#if defined(__linux__)
#include <unistd.h>
#endif

#include "common/aligned_buffer.h"
#include "common/cpu_dispatch.h"
#include "common/torch_stable.h"
#include "conv2d_winograd/conv2d_winograd.h"
#include "conv2d_winograd/conv2d_winograd_cpu.h"
#include "conv2d_winograd/cpu_division.h"

namespace resnet_cuda {
namespace {

using namespace conv2d_winograd_cpu;

// The least and the most steps of a strip, each of kTileStep tiles.
constexpr int64_t kLeastSteps = 2;
constexpr int64_t kMostSteps = 4;

constexpr KernelsFor<Kernels> kKernelsOfSets[] = {
    portable_kernels,
    RESNET_CUDA_ON_X86(avx2_kernels, avx512_kernels, avx512_bf16_kernels)};

// Bytes of a core's second-level cache.
int64_t second_level_cache() {
  int64_t bytes = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  return bytes > 0 ? bytes : int64_t{1} << 20;
}

// Tiles of a strip: the transformed patches and the products fill half of the second-level cache; the other half is for
// the weights. At least 24 tiles, so that two register blocks share each read of the weights: the bandwidth of the
// third-level cache may not suffice for one.
int64_t strip_tiles_for(int64_t channels) {
  static const int64_t budget = second_level_cache() / 2 / static_cast<int64_t>(sizeof(float));
  const int64_t fitting = budget / (kPatchPixels * (row_stride(channels) + kProductRow));
  return std::clamp(fitting / kTileStep, kLeastSteps, kMostSteps) * kTileStep;
}

}  // namespace

void conv2d_winograd_kernel(
    const WinogradShape& shape,
    const Tensor& input,
    const Tensor& weight,
    const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output) {
  const Kernels& kernels = choose_kernels(input.scalar_type(), kKernelsOfSets);
  const AlignedBuffer zeros(shape.channels * static_cast<int64_t>(input.element_size()), true);
  Task task{};
  task.shape = shape;
  task.input = input.const_data_ptr();
  task.weight = static_cast<const float*>(weight.const_data_ptr());
  task.bias = bias ? static_cast<const float*>(bias->const_data_ptr()) : nullptr;
  task.residual = residual ? residual->const_data_ptr() : nullptr;
  task.output = output.mutable_data_ptr();
  task.zeros = zeros.data();
  task.relu = relu;
  task.strip_tiles = strip_tiles_for(shape.channels);

  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const Division division = divide(shape, threads, task.strip_tiles);
  const int64_t steps = ceil_div(shape.tiles(), kTileStep);
  const int64_t parts = division.tile_parts * division.panel_parts;
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer workspace(workspace_elements(task) * static_cast<int64_t>(sizeof(float)));
    for (int64_t part = begin; part < end; ++part) {
      const int64_t tile_part = part / division.panel_parts;
      const int64_t panel_part = part % division.panel_parts;
      const Part range{
          steps * tile_part / division.tile_parts * kTileStep,
          std::min(steps * (tile_part + 1) / division.tile_parts * kTileStep, shape.tiles()),
          shape.panels() * panel_part / division.panel_parts,
          shape.panels() * (panel_part + 1) / division.panel_parts};
      if (range.tile_begin < range.tile_end) {
        kernels.forward(task, range, static_cast<float*>(workspace.data()));
      }
    }
  });
}

}  // namespace resnet_cuda
