// As operators, for the tests: the input lists of csrc/deform_conv/cuda_list_storage.cuh and the backward's sizes.

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv/cuda_backward_needs.cuh"
#include "deform_conv/cuda_call.cuh"

namespace resnet_cuda {
namespace {

using Integers = std::vector<int64_t>;

template <typename Real>
std::tuple<Tensor, Tensor, Tensor, Tensor>
lists_in(const Chunk& chunk, const Positions& positions, const Tensor& offset) {
  const Launcher launcher(offset);
  const ListStorage<Real> storage(offset, chunk.shape, chunk.images, chunk.rows);
  const InputLists<Real> built = storage.build(launcher, chunk, positions);
  const int64_t lists = chunk.shape.offset_groups * chunk.images * chunk.input_pixels();
  const int64_t entries = *built.entry_count;
  const Tensor ranges = empty_beside(offset, {lists, 2}, ScalarType::Int);
  const Tensor rows = empty_beside(offset, {entries}, ScalarType::Int);
  const Tensor weights = empty_beside(offset, {entries}, offset.scalar_type());
  const Tensor long_lists = empty_beside(offset, {*built.long_count}, ScalarType::Int);
  auto* range = static_cast<int*>(ranges.mutable_data_ptr());
  for (int64_t i = 0; i < lists; ++i) {
    range[2 * i] = built.ranges[i].begin;
    range[2 * i + 1] = built.ranges[i].length;
  }
  for (int64_t i = 0; i < entries; ++i) {
    static_cast<int*>(rows.mutable_data_ptr())[i] = built.entries[i].row;
    static_cast<Real*>(weights.mutable_data_ptr())[i] = built.entries[i].weight;
  }
  for (int64_t i = 0; i < *built.long_count; ++i) {
    static_cast<int*>(long_lists.mutable_data_ptr())[i] = built.long_lists[i];
  }
  return {ranges, rows, weights, long_lists};
}

// [lists, 2]: begin and length; [entries]: rows; [entries]: weights; [long lists]. `geometry`: H, W, kernel, stride,
// padding, dilation, offset groups. Of some images and some rows of the output.
std::tuple<Tensor, Tensor, Tensor, Tensor> lists(
    const Tensor& offset,
    const std::optional<Tensor>& mask,
    const Integers& geometry,
    int64_t first_image,
    int64_t images,
    int64_t first_row,
    int64_t rows) {
  DeformConvShape shape{};
  shape.batch = offset.size(0);
  shape.channels = shape.out_channels = geometry[10];
  shape.groups = 1;
  shape.height = geometry[0];
  shape.width = geometry[1];
  shape.kernel_h = geometry[2];
  shape.kernel_w = geometry[3];
  shape.stride_h = geometry[4];
  shape.stride_w = geometry[5];
  shape.pad_h = geometry[6];
  shape.pad_w = geometry[7];
  shape.dilation_h = geometry[8];
  shape.dilation_w = geometry[9];
  shape.offset_groups = geometry[10];
  shape.out_height = offset.size(2);
  shape.out_width = offset.size(3);
  const Chunk chunk = chunk_of(shape, first_image, images, first_row, rows);
  const ScalarType real = offset.scalar_type();
  const Positions positions{plane_of(offset, real, "offset"), plane_of(mask, real, "mask")};
  return real == ScalarType::Double ? lists_in<double>(chunk, positions, offset)
                                    : lists_in<float>(chunk, positions, offset);
}

// [7]: images, rows and images of lists of a backward in `beside`'s dtype, float32 or bfloat16; bytes per call, per
// image, of the sums and of an image's lists. `workspace` 0: the tests' own.
Tensor backward_sizes(
    const Tensor& beside,
    int64_t batch,
    int64_t channels,
    int64_t out_channels,
    int64_t height,
    int64_t width,
    int64_t kernel,
    int64_t copies,
    int64_t workspace) {
  DeformConvShape shape{};
  shape.batch = batch;
  shape.channels = channels;
  shape.out_channels = out_channels;
  shape.height = shape.out_height = height;
  shape.width = shape.out_width = width;
  shape.kernel_h = shape.kernel_w = kernel;
  shape.groups = shape.offset_groups = 1;
  workspace = workspace == 0 ? kWorkspaceBytes : workspace;
  const WorkspaceNeeds needs = beside.scalar_type() == ScalarType::Float
                                   ? backward_needs<float, float>(shape, copies, workspace)
                                   : backward_needs<torch::headeronly::BFloat16, float>(shape, copies, workspace);
  const ChunkSizes sizes = chunk_sizes(shape, needs, workspace);
  const Tensor result = empty_beside(beside, {7}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  numbers[0] = sizes.images;
  numbers[1] = sizes.rows;
  numbers[2] = sizes.list_images;
  numbers[3] = needs.per_call;
  numbers[4] = needs.per_image + shape.out_pixels() * needs.per_pixel;
  numbers[5] = needs.sums;
  numbers[6] = needs.image_lists;
  return result;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_lists, m) {
  m.def(
      "lists(Tensor offset, Tensor? mask, int[] geometry, int first_image, int images, int first_row, int rows) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "backward_sizes(Tensor beside, int batch, int channels, int out_channels, int height, int width, int kernel, "
      "int copies, int workspace) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_lists, CPU, m) {
  m.impl("lists", TORCH_BOX(&resnet_cuda::lists));
  m.impl("backward_sizes", TORCH_BOX(&resnet_cuda::backward_sizes));
}
