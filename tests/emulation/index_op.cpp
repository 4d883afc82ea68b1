// As operators, for the tests: csrc/common/fast_division.h, PlanePosition of csrc/frozen_bn/cuda_contiguous.cuh, the
// grid of csrc/frozen_bn/cuda_grid.h, the strip order of csrc/deform_conv/cuda_strips.cuh, the chunks of
// csrc/deform_conv/cuda_workspace.h, the parts of csrc/deform_conv/cuda_tap_block.cuh, the blocks and position types of
// csrc/deform_conv/cuda_call.cuh, csrc/deform_conv/cuda_index_limits.h, the fused forward's tiles of
// csrc/deform_conv_fused/cuda_forward_tiles.h, csrc/deform_conv_fused/cuda_stream_k.cuh, and for a CPU the threads of
// csrc/conv2d_winograd/cpu_division.h.

#include <algorithm>
#include <vector>

#include "common/registration.h"
#include "common/tensors.h"
#include "conv2d_winograd/cpu_division.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_index_limits.h"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/cuda_workspace.h"
#include "deform_conv_fused/cuda_forward_tiles.h"
#include "deform_conv_fused/cuda_stream_k.cuh"
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

// [2]: taps and packs of a block of SampleColumns.
Tensor parts_of_taps(
    const Tensor& beside,
    int64_t pixel_blocks,
    int64_t taps,
    int64_t packs,
    int64_t least_packs,
    int64_t most_packs,
    int64_t wanted_blocks) {
  const auto number = [](int64_t size) { return static_cast<int>(size); };
  const TapParts parts =
      tap_parts(pixel_blocks, number(taps), number(packs), number(least_packs), number(most_packs), wanted_blocks);
  const Tensor result = empty_beside(beside, {2}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  numbers[0] = parts.taps;
  numbers[1] = parts.slice_packs;
  return result;
}

// Taps of a block of PositionGradients.
int64_t taps_of_waves(const Tensor&, int64_t pixel_blocks, int64_t taps, int64_t wave) {
  return taps_in_waves(pixel_blocks, static_cast<int>(taps), wave);
}

// [4]: taps and packs of a block, blocks, threads per row. Of SampleColumns, or with at_once > 0 of PositionGradients;
// `pack` channels are one load.
Tensor blocks_of_chunk(
    const Tensor& beside,
    int64_t channels,
    int64_t groups,
    int64_t offset_groups,
    int64_t kernel_h,
    int64_t kernel_w,
    int64_t images,
    int64_t rows,
    int64_t width,
    int64_t pack,
    int64_t pack_bytes,
    int64_t at_once) {
  DeformConvShape shape{};
  shape.channels = channels;
  shape.groups = groups;
  shape.offset_groups = offset_groups;
  shape.kernel_h = kernel_h;
  shape.kernel_w = kernel_w;
  shape.out_width = width;
  const Launcher launcher(beside);
  const Chunk chunk = chunk_of(shape, 0, images, 0, rows);
  const auto in_pack = static_cast<int>(pack);
  const TapBlocks blocks = at_once > 0 ? position_blocks(launcher, chunk, in_pack, static_cast<int>(at_once))
                                       : sampling_blocks(launcher, chunk, in_pack, static_cast<int>(pack_bytes));
  const Tensor result = empty_beside(beside, {4}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  numbers[0] = blocks.division.part.taps;
  numbers[1] = blocks.division.part.slice_packs;
  numbers[2] = blocks.blocks;
  numbers[3] = blocks.division.row_threads;
  return result;
}

// [3]: pixels and columns of the fused forward's tiles, parts of K.
Tensor fused_tiles_of(
    const Tensor& beside,
    int64_t pixels,
    int64_t groups,
    int64_t group_out_channels,
    int64_t steps,
    int64_t multiprocessors) {
  const FusedTiles tiles = fused_tiles(pixels, groups, group_out_channels, steps, static_cast<int>(multiprocessors));
  const Tensor result = empty_beside(beside, {3}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  numbers[0] = tiles.pixels;
  numbers[1] = tiles.columns;
  numbers[2] = tiles.splits;
  return result;
}

// [2]: tile parts and panel parts of Winograd's convolution.
Tensor winograd_division(
    const Tensor& beside,
    int64_t out_height,
    int64_t out_width,
    int64_t out_channels,
    int64_t threads,
    int64_t strip_tiles) {
  WinogradShape shape{};
  shape.batch = 1;
  shape.out_height = out_height;
  shape.out_width = out_width;
  shape.out_channels = out_channels;
  const auto division = conv2d_winograd_cpu::divide(shape, threads, strip_tiles);
  const Tensor result = empty_beside(beside, {2}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  numbers[0] = division.tile_parts;
  numbers[1] = division.panel_parts;
  return result;
}

// Raises the error of sizes that the kernels cannot count: C, H, W, Ho, Wo, kernel, padding, offset groups.
void countable(const Tensor&, std::vector<int64_t> sizes) {
  DeformConvShape shape{};
  shape.channels = sizes.at(0);
  shape.height = sizes.at(1);
  shape.width = sizes.at(2);
  shape.out_height = sizes.at(3);
  shape.out_width = sizes.at(4);
  shape.kernel_h = sizes.at(5);
  shape.kernel_w = sizes.at(6);
  shape.pad_h = sizes.at(7);
  shape.pad_w = sizes.at(8);
  shape.offset_groups = sizes.at(9);
  check_index_limits(shape);
}

// How the kernels read an offset of this dtype beside images of `input`'s.
int64_t type_of_offset(const Tensor& offset, const Tensor& input) {
  return static_cast<int64_t>(position_type(offset.scalar_type(), compute_dtype(input.scalar_type()), "offset"));
}

// [parts, 5]: block, tile, first step, end, and place of the sums, of every part in the order of the list.
Tensor stream_parts(const Tensor& beside, int64_t tiles, int64_t steps, int64_t most_blocks) {
  const StreamK stream(tiles, steps, most_blocks);
  std::vector<int64_t> numbers;
  for (int64_t block = 0; block < stream.blocks(); ++block) {
    const int64_t end = stream.begin(block + 1);
    StreamK::Part part;
    for (int64_t place = stream.begin(block); place < end; place += part.end - part.first) {
      part = stream.part(place, end);
      numbers.insert(numbers.end(), {block, part.tile, part.first, part.end, StreamK::place(block, part.tile)});
    }
  }
  const Tensor result = empty_beside(beside, {static_cast<int64_t>(numbers.size() / 5), 5}, ScalarType::Long);
  std::copy(numbers.begin(), numbers.end(), static_cast<int64_t*>(result.mutable_data_ptr()));
  return result;
}

// [tiles, 3]: of each tile the first and the last block, and how many places there are for sums.
Tensor stream_blocks(const Tensor& beside, int64_t tiles, int64_t steps, int64_t most_blocks) {
  const StreamK stream(tiles, steps, most_blocks);
  const Tensor result = empty_beside(beside, {tiles, 3}, ScalarType::Long);
  auto* numbers = static_cast<int64_t*>(result.mutable_data_ptr());
  for (int64_t tile = 0; tile < tiles; ++tile) {
    numbers[3 * tile] = stream.first_block(tile);
    numbers[3 * tile + 1] = stream.last_block(tile);
    numbers[3 * tile + 2] = StreamK::places(tiles, most_blocks);
  }
  return result;
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
  m.def(
      "parts_of_taps(Tensor beside, int pixel_blocks, int taps, int packs, int least_packs, int most_packs, "
      "int wanted_blocks) -> Tensor");
  m.def("taps_of_waves(Tensor beside, int pixel_blocks, int taps, int wave) -> int");
  m.def(
      "blocks_of_chunk(Tensor beside, int channels, int groups, int offset_groups, int kernel_h, int kernel_w, "
      "int images, int rows, int width, int pack, int pack_bytes, int at_once) -> Tensor");
  m.def(
      "winograd_division(Tensor beside, int out_height, int out_width, int out_channels, int threads, int strip_tiles) "
      "-> Tensor");
  m.def(
      "fused_tiles(Tensor beside, int pixels, int groups, int group_out_channels, int steps, int multiprocessors) "
      "-> Tensor");
  m.def("countable(Tensor beside, int[] sizes) -> ()");
  m.def("type_of_offset(Tensor offset, Tensor input) -> int");
  m.def("stream_parts(Tensor beside, int tiles, int steps, int most_blocks) -> Tensor");
  m.def("stream_blocks(Tensor beside, int tiles, int steps, int most_blocks) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_index, CPU, m) {
  m.impl("divide", TORCH_BOX(&resnet_cuda::divide));
  m.impl("divide32", TORCH_BOX(&resnet_cuda::divide32));
  m.impl("strips", TORCH_BOX(&resnet_cuda::strips));
  m.impl("walk", TORCH_BOX(&resnet_cuda::walk));
  m.impl("frozen_bn_blocks", TORCH_BOX(&resnet_cuda::frozen_bn_blocks));
  m.impl("frozen_bn_indices_fit", TORCH_BOX(&resnet_cuda::frozen_bn_indices_fit));
  m.impl("chunk", TORCH_BOX(&resnet_cuda::chunk));
  m.impl("parts_of_taps", TORCH_BOX(&resnet_cuda::parts_of_taps));
  m.impl("taps_of_waves", TORCH_BOX(&resnet_cuda::taps_of_waves));
  m.impl("blocks_of_chunk", TORCH_BOX(&resnet_cuda::blocks_of_chunk));
  m.impl("fused_tiles", TORCH_BOX(&resnet_cuda::fused_tiles_of));
  m.impl("winograd_division", TORCH_BOX(&resnet_cuda::winograd_division));
  m.impl("countable", TORCH_BOX(&resnet_cuda::countable));
  m.impl("type_of_offset", TORCH_BOX(&resnet_cuda::type_of_offset));
  m.impl("stream_parts", TORCH_BOX(&resnet_cuda::stream_parts));
  m.impl("stream_blocks", TORCH_BOX(&resnet_cuda::stream_blocks));
}
