// How much of a call the CUDA kernels process at a time, so that their memory has a bound whatever the batch.
#pragma once

#include <algorithm>

#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Scratch memory beyond arguments and results: 48 MiB, which fit a large GPU's L2 cache and are little beside the
// activations. Exceeded where a single row of an image needs more, and as chunk_sizes says.
#if !defined(RESNET_CUDA_WORKSPACE_BYTES)
#define RESNET_CUDA_WORKSPACE_BYTES (int64_t{48} << 20)
#endif
constexpr int64_t kWorkspaceBytes = RESNET_CUDA_WORKSPACE_BYTES;
static_assert(
    kWorkspaceBytes > 0 && kWorkspaceBytes <= int64_t{1} << 31,
    "the kernels count a chunk's pixels, rows of columns and list entries in 32 bits");

struct WorkspaceNeeds {
  int64_t per_call;               // bytes: the reordered weight, its gradient
  int64_t per_image;              // bytes: copies in another layout, lists
  int64_t per_pixel;              // bytes per output pixel: columns, list entries
  int64_t per_divided_image = 0;  // further bytes where an image is several chunks: its running sums
};

// Whole images, or rows of one image.
struct ChunkSizes {
  int64_t images;
  int64_t rows;
};

inline ChunkSizes chunk_sizes(const DeformConvShape& shape, const WorkspaceNeeds& needs) {
  // At least half of the workspace goes to the chunks, even if per_call takes more than the other half.
  const int64_t budget = std::max(kWorkspaceBytes - needs.per_call, kWorkspaceBytes / 2);
  const int64_t image_bytes = needs.per_image + shape.out_pixels() * needs.per_pixel;
  if (image_bytes <= budget) {
    const int64_t most = std::min(shape.batch, budget / image_bytes);
    return {ceil_div(shape.batch, ceil_div(shape.batch, most)), shape.out_height};
  }
  const int64_t row_bytes = shape.out_width * needs.per_pixel;
  // At least a quarter of the workspace goes to the rows, even if per_image already exceeds the budget; the bound is
  // then exceeded. Otherwise an image of 256 x 200 x 336 would be divided into single rows, too small to fill a GPU.
  const int64_t room = std::max(budget - needs.per_image - needs.per_divided_image, kWorkspaceBytes / 4);
  const int64_t most = std::clamp<int64_t>(room / row_bytes, 1, shape.out_height);
  return {1, ceil_div(shape.out_height, ceil_div(shape.out_height, most))};
}

}  // namespace resnet_cuda
