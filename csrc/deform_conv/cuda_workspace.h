// How much of a call the CUDA kernels process at a time, so that their memory has a bound whatever the batch.
#pragma once

#include <algorithm>

#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Scratch memory beyond arguments and results: 64 MiB, little beside the activations. Three quarters of it are for the
// columns and copies of a chunk: 48 MiB, which fit a large GPU's L2 cache. Exceeded where a single row of an image
// needs more, and as chunk_sizes says.
#if !defined(RESNET_CUDA_WORKSPACE_BYTES)
#define RESNET_CUDA_WORKSPACE_BYTES (int64_t{64} << 20)
#endif
constexpr int64_t kWorkspaceBytes = RESNET_CUDA_WORKSPACE_BYTES;
static_assert(
    kWorkspaceBytes > 0 && kWorkspaceBytes <= int64_t{1} << 31,
    "the kernels count a chunk's pixels, rows of columns and list entries in 32 bits");

struct WorkspaceNeeds {
  int64_t per_call;               // bytes: the reordered weight
  int64_t per_image;              // bytes: copies in another layout
  int64_t per_pixel;              // bytes per output pixel: columns
  int64_t per_divided_image = 0;  // further bytes where an image is several chunks: its running sums
  // Further bytes of the backward: the sums of the weight's and the bias' gradients and what the allocator takes more;
  // the lists of an image; the lists of one row of an image.
  int64_t sums = 0;
  int64_t image_lists = 0;
  int64_t row_lists = 0;
};

// Whole images, or rows of one image; and the images whose lists are built at once, a multiple of a chunk's.
struct ChunkSizes {
  int64_t images;
  int64_t rows;
  int64_t list_images;
};

// `count` things in as few parts of at most `most` as there must be, of equal sizes but for the last.
inline int64_t even_part(int64_t count, int64_t most) {
  return ceil_div(count, ceil_div(count, most));
}

// `workspace` is another than kWorkspaceBytes in tests only.
inline ChunkSizes
chunk_sizes(const DeformConvShape& shape, const WorkspaceNeeds& needs, int64_t workspace = kWorkspaceBytes) {
  const int64_t for_chunk = workspace / 4 * 3;
  // At least half of each budget goes to the chunks, even if what a call needs takes more than the other half.
  const int64_t chunk_budget = std::max(for_chunk - needs.per_call, for_chunk / 2);
  const int64_t budget = std::max(workspace - needs.per_call - needs.sums, workspace / 2);
  const int64_t image_bytes = needs.per_image + shape.out_pixels() * needs.per_pixel;
  const int64_t most = std::min(chunk_budget / image_bytes, budget / (image_bytes + needs.image_lists));
  if (most > 0) {
    const int64_t images = even_part(shape.batch, std::min(shape.batch, most));
    if (needs.image_lists == 0) {
      return {images, shape.out_height, images};
    }
    const int64_t list_chunks = (budget - images * image_bytes) / needs.image_lists / images;
    return {images, shape.out_height, images * even_part(ceil_div(shape.batch, images), list_chunks)};
  }
  const int64_t row_bytes = shape.out_width * needs.per_pixel + needs.row_lists;
  // At least a quarter of the budget goes to the rows, even if per_image already exceeds it; the bound is then
  // exceeded. Otherwise an image of 256 x 200 x 336 would be divided into single rows, too small to fill a GPU.
  const int64_t room =
      std::max(std::min(chunk_budget, budget) - needs.per_image - needs.per_divided_image, for_chunk / 4);
  const int64_t most_rows = std::clamp<int64_t>(room / row_bytes, 1, shape.out_height);
  return {1, even_part(shape.out_height, most_rows), 1};
}

}  // namespace resnet_cuda
