// col2im as a gather: each input pixel sums its list of rows of the columns' gradient (cuda_input_lists.cuh).
#pragma once

#include "common/pack.cuh"
#include "deform_conv/cuda_input_lists.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// Where the sums go: to the gradient itself or, where an image is several chunks, to its running total.
template <typename T, typename Real>
struct InputGradient {
  T* gradient;  // [images, H, W, C], written; or null
  Real* total;  // [images, H, W, C], added to

  template <int N>
  RESNET_CUDA_BODY void put(int64_t element, const Real (&sum)[N]) const {
    if (gradient != nullptr) {
      store_pack(gradient + element, pack_of<T, N>(sum));
      return;
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      total[element + j] += sum[j];
    }
  }
};

template <typename T, typename Real, int N>
struct ListSum {
  const T* grad_columns;  // [groups][pixels][taps][C/groups]
  InputLists<Real> lists;

  // Adds the weighted rows of the entries [begin, end), N elements of each from `first_element` on.
  RESNET_CUDA_BODY void add(int begin, int end, int64_t first_element, int64_t row_elements, Real (&sum)[N]) const {
    const T* source = grad_columns + first_element;
#pragma unroll 4
    for (int entry = begin; entry < end; ++entry) {
      const ListEntry<Real> term = lists.sorted[entry];
      Real value[N];
      unpack(load_pack<N>(source + term.row * row_elements), value);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sum[j] += term.weight * value[j];
      }
    }
  }
};

// A block does one slice of channels of one tile of the input for one offset group, `row_threads` threads per pixel.
template <typename T, typename Real, int N>
struct GatherInput {
  static constexpr int kThreads = kTileThreads;

  Chunk chunk;
  ListSum<T, Real, N> list_sum;
  InputGradient<T, Real> target;
  Tiling tiling;  // of the input
  int slices;     // of an offset group's channels, N * row_threads each
  int row_threads;

  RESNET_CUDA_BODY void operator()() const {
    const DeformConvShape& shape = chunk.shape;
    const auto work = static_cast<int>(device::block());
    const int offset_groups = static_cast<int>(shape.offset_groups);
    const int group_channels = chunk.offset_group_channels;
    const int slice = work % slices;
    const int offset_group = work / slices % offset_groups;
    const int tile = work / slices / offset_groups;
    const int in_group = (slice * row_threads + device::thread() % row_threads) * N;
    if (in_group >= group_channels) {
      return;
    }
    const int channel = offset_group * group_channels + in_group;
    const int64_t first_element = column_index(chunk, 0, channel);
    for (int i = device::thread() / row_threads; i < kTilePixels; i += kThreads / row_threads) {
      const TilePixel pixel = tiling.pixel(tile, i);
      if (!pixel.inside) {
        continue;
      }
      const int in_image = pixel.row * tiling.width + pixel.column;
      const int list = (offset_group * chunk.images + pixel.image) * chunk.input_pixels() + in_image;
      const int begin = list_sum.lists.begin[list];
      const int length = list_sum.lists.length[list];
      if (length <= kLongList) {
        Real sum[N] = {};
        list_sum.add(begin, begin + length, first_element, chunk.group_channels, sum);
        const int64_t element = static_cast<int64_t>(pixel.image) * chunk.input_pixels() + in_image;
        target.put(element * shape.channels + channel, sum);
      }
    }
  }
};

// The long lists: a block sums a slice of channels of one list, each group of `row_threads` threads a part of its
// entries, and then the parts in their order. Any number of blocks.
template <typename T, typename Real, int N>
struct GatherLongLists {
  static constexpr int kThreads = kTileThreads;
  static_assert(kMostRowThreads * N <= kThreads, "in the end each thread sums the parts of one channel of the slice");
  // [parts][row_threads * N]
  static constexpr int kSharedBytes = kThreads * N * static_cast<int>(sizeof(Real));

  Chunk chunk;
  ListSum<T, Real, N> list_sum;
  InputGradient<T, Real> target;
  int slices;
  int row_threads;

  RESNET_CUDA_BODY void operator()() const {
    const DeformConvShape& shape = chunk.shape;
    const InputLists<Real>& lists = list_sum.lists;
    const int group_channels = chunk.offset_group_channels;
    const int parts = kThreads / row_threads;
    const int part = device::thread() / row_threads;
    const int width = row_threads * N;
    const device::Shared<Real> sums(0, kThreads * N);
    const int64_t work_count = static_cast<int64_t>(*lists.long_count) * slices;
    for (int64_t work = device::block(); work < work_count; work += device::blocks()) {
      const int list = lists.long_lists[work / slices];
      const int in_list = list % (chunk.images * chunk.input_pixels());
      const int offset_group = list / (chunk.images * chunk.input_pixels());
      const int first_in_group = static_cast<int>(work % slices) * width;
      const int in_group = first_in_group + device::thread() % row_threads * N;

      Real sum[N] = {};
      if (in_group < group_channels) {
        const int64_t length = lists.length[list];
        const int begin = lists.begin[list];
        const int channel = offset_group * group_channels + in_group;
        list_sum.add(
            begin + static_cast<int>(length * part / parts),
            begin + static_cast<int>(length * (part + 1) / parts),
            column_index(chunk, 0, channel),
            chunk.group_channels,
            sum);
      }
      for (int j = 0; j < N; ++j) {
        sums.set(part * width + device::thread() % row_threads * N + j, sum[j]);
      }
      RESNET_CUDA_SYNC_BLOCK();

      const int element = device::thread();
      if (element < width && first_in_group + element < group_channels) {
        Real total[1] = {Real(0)};
        for (int i = 0; i < parts; ++i) {
          total[0] += sums.get(i * width + element);
        }
        const int channel = offset_group * group_channels + first_in_group + element;
        target.put(in_list * shape.channels + channel, total);
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }
};

}  // namespace resnet_cuda
