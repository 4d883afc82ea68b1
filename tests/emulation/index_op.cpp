// As operators, for the tests: csrc/common/fast_division.h, PlanePosition of csrc/frozen_bn/cuda_contiguous.cuh, the
// grid of csrc/frozen_bn/cuda_grid.h, the strip order of csrc/deform_conv/cuda_strips.cuh, the chunks of
// csrc/deform_conv/cuda_workspace.h and the position types of csrc/deform_conv/cuda_call.cuh.

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/cuda_workspace.h"
#include "frozen_bn/cuda_contiguous.cuh"

namespace resnet_cuda {
namespace {

// [2, count]: quotients and remainders of the int64 numerators [count].
Tensor divide(const Tensor& numerators, int64_t divisor) {
  const int64_t count = numerators.size(0);
  const Tensor result = empty_beside(numerators, {2, count}, ScalarType::Long);
  const auto* numerator = static_cast<const int64_t*>(numerators.const_data_ptr());
  auto* quotient = static_cast<int64_t*>(result.data_ptr());
  const FastDivision division(divisor);
  for (int64_t i = 0; i < count; ++i) {
    quotient[i] = division.quotient(numerator[i]);
    quotient[count + i] = division.remainder(numerator[i]);
  }
  return result;
}

// [2, count]: the same with 32-bit numerators and divisor, all below 2^31.
Tensor divide32(const Tensor& numerators, int64_t divisor) {
  const int64_t count = numerators.size(0);
  const Tensor result = empty_beside(numerators, {2, count}, ScalarType::Long);
  const auto* numerator = static_cast<const int64_t*>(numerators.const_data_ptr());
  auto* quotient = static_cast<int64_t*>(result.data_ptr());
  const FastDivision32 division(static_cast<int>(divisor));
  for (int64_t i = 0; i < count; ++i) {
    quotient[i] = division.quotient(static_cast<int>(numerator[i]));
    quotient[count + i] = division.remainder(static_cast<int>(numerator[i]));
  }
  return result;
}

// [height * width, 2]: row and column of every pixel in strip order.
Tensor strips(const Tensor& beside, int64_t height, int64_t width) {
  const Tensor result = empty_beside(beside, {height * width, 2}, ScalarType::Long);
  auto* place = static_cast<int64_t*>(result.data_ptr());
  const StripOrder order(static_cast<int>(height), static_cast<int>(width));
  for (int64_t i = 0; i < height * width; ++i) {
    const StripPixel pixel = order.pixel(static_cast<int>(i));
    place[2 * i] = pixel.row;
    place[2 * i + 1] = pixel.column;
  }
  return result;
}

template <typename Index>
void walk_in(int64_t channels, int64_t plane, int64_t step, int64_t count, int64_t* result) {
  using Position = PlanePosition<Index>;
  const Position by = {static_cast<Index>(step / plane % channels), static_cast<Index>(step % plane)};
  Position position = {0, 0};
  for (int64_t i = 0; i < count; ++i) {
    result[2 * i] = position.channel;
    result[2 * i + 1] = position.within;
    position = position.plus(by, static_cast<Index>(channels), static_cast<Index>(plane));
  }
}

// [count, 2]: channel and place in the plane of the elements 0, step, 2 * step, …, in 32 or 64 bits. `beside` is on a
// CPU.
Tensor walk(const Tensor& beside, int64_t channels, int64_t plane, int64_t step, int64_t count, bool wide) {
  const Tensor result = empty_beside(beside, {count, 2}, ScalarType::Long);
  const auto run = wide ? walk_in<int64_t> : walk_in<int32_t>;
  run(channels, plane, step, count, static_cast<int64_t*>(result.data_ptr()));
  return result;
}

// Blocks of a pass of FrozenBN over `packs` packs, `in_flight` of them loaded at once by a thread.
int64_t frozen_bn_blocks(const Tensor&, int64_t packs, int64_t in_flight, int64_t multiprocessors) {
  return frozen_bn_cuda::blocks_for(packs, static_cast<int>(in_flight), static_cast<int>(multiprocessors));
}

// Whether FrozenBN's kernels count these in 32 bits.
bool frozen_bn_indices_fit(const Tensor&, int64_t packs, int64_t channels) {
  return frozen_bn_cuda::indices_fit(packs, channels);
}

// [4]: images and rows of a chunk, images of a batch of lists, and the bytes that all of a call is to take.
Tensor chunk(
    const Tensor& beside,
    int64_t batch,
    int64_t out_height,
    int64_t out_width,
    int64_t per_call,
    int64_t per_image,
    int64_t per_pixel,
    int64_t per_divided_image,
    int64_t sums,
    int64_t image_lists,
    int64_t row_lists) {
  DeformConvShape shape{};
  shape.batch = batch;
  shape.out_height = out_height;
  shape.out_width = out_width;
  const ChunkSizes sizes =
      chunk_sizes(shape, {per_call, per_image, per_pixel, per_divided_image, sums, image_lists, row_lists});
  const Tensor result = empty_beside(beside, {4}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.data_ptr());
  numbers[0] = sizes.images;
  numbers[1] = sizes.rows;
  numbers[2] = sizes.list_images;
  numbers[3] = kWorkspaceBytes;
  return result;
}

// How the kernels read an offset of this dtype beside images of `input`'s.
int64_t type_of_offset(const Tensor& offset, const Tensor& input) {
  return static_cast<int64_t>(position_type(offset.scalar_type(), compute_dtype(input.scalar_type()), "offset"));
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_index, m) {
  m.def("divide(Tensor numerators, int divisor) -> Tensor");
  m.def("divide32(Tensor numerators, int divisor) -> Tensor");
  m.def("strips(Tensor beside, int height, int width) -> Tensor");
  m.def("walk(Tensor beside, int channels, int plane, int step, int count, bool wide) -> Tensor");
  m.def("frozen_bn_blocks(Tensor beside, int packs, int in_flight, int multiprocessors) -> int");
  m.def("frozen_bn_indices_fit(Tensor beside, int packs, int channels) -> bool");
  m.def(
      "chunk(Tensor beside, int batch, int out_height, int out_width, int per_call, int per_image, int per_pixel, "
      "int per_divided_image, int sums, int image_lists, int row_lists) -> Tensor");
  m.def("type_of_offset(Tensor offset, Tensor input) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_index, CPU, m) {
  m.impl("divide", TORCH_BOX(&resnet_cuda::divide));
  m.impl("divide32", TORCH_BOX(&resnet_cuda::divide32));
  m.impl("strips", TORCH_BOX(&resnet_cuda::strips));
  m.impl("walk", TORCH_BOX(&resnet_cuda::walk));
  m.impl("frozen_bn_blocks", TORCH_BOX(&resnet_cuda::frozen_bn_blocks));
  m.impl("frozen_bn_indices_fit", TORCH_BOX(&resnet_cuda::frozen_bn_indices_fit));
  m.impl("chunk", TORCH_BOX(&resnet_cuda::chunk));
  m.impl("type_of_offset", TORCH_BOX(&resnet_cuda::type_of_offset));
}
