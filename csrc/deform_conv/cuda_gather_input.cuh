// col2im as a gather: each input pixel sums its list of rows of the columns' gradient (cuda_input_lists.cuh).
#pragma once

#include "common/launch.cuh"
#include "common/pack.cuh"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_input_lists.cuh"
#include "deform_conv/cuda_strips.cuh"

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

// How a chunk's pixels and channels are divided among blocks.
struct GatherDivision {
  int pixels;             // of the chunk's images
  int row_threads;        // neighbouring threads that share a pixel: a power of two, at most kMostRowThreads
  int row_elements;       // C/groups
  uint32_t row_bytes;     // of these
  int image_rows;         // rows of the columns of one image
  int first_image;        // of the chunk, within the lists
  FastDivision32 slices;  // of an offset group's channels, N * kPacks * row_threads each
  FastDivision32 offset_groups;
  FastDivision32 image_pixels;  // of the input
  FastDivision32 group_channels;
  StripOrder order;
};

// Packs of a row that a thread sums: packs in_row, in_row + row_threads, ...
template <int kPacks, typename Real, int N>
struct PackSums {
  Real pack[kPacks][N];
};

// Thread block: kThreads / row_threads pixels, in the order of their lists, and one slice of channels of one offset
// group. It first sums the long lists assigned to it, then the other lists of its pixels. With kPacks = 2 a slice is
// 2 * kMostRowThreads packs, all of one weight group.
template <typename T, typename Real, int N, int kPacks>
struct GatherInput {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / device::kWarp;
  // Entries whose rows are loaded together: as many as 64 registers hold.
  static constexpr int kStep = kPacks > 1 ? 3 : 4;
  static_assert(kStep <= kListStep, "behind the last list there is room for the entries that are loaded ahead");
  static constexpr int kMostWidth = kMostRowThreads * kPacks * N;
  static_assert(kMostWidth <= kThreads, "in the end each thread sums the parts of one channel of the slice");
  // [warps][channels of a slice]
  static constexpr int kSharedBytes = kWarps * kMostWidth * static_cast<int>(sizeof(Real));

  Chunk chunk;
  const T* grad_columns;  // [groups][pixels][taps][C/groups]
  InputLists<Real> lists;
  InputGradient<T, Real> target;
  GatherDivision division;

  RESNET_CUDA_BODY void operator()() const {
    const auto work = static_cast<int>(device::block());
    const int of_group = division.slices.quotient(work);
    const int slice = work - of_group * division.slices.divisor();
    const int pixel_block = division.offset_groups.quotient(of_group);
    const int offset_group = of_group - pixel_block * division.offset_groups.divisor();
    const int long_count = *lists.long_count;
    const int place = pixel_block * (kThreads / row_threads()) + device::thread() / row_threads();
    const int in_group = first_channel(slice);
    const bool exists = place < division.pixels && in_group < chunk.offset_group_channels;
    const int image = division.image_pixels.quotient(exists ? place : 0);
    const int in_image = place - image * division.image_pixels.divisor();
    ListRange range{0, 0};
    if (exists) {
      range = lists.ranges[list_of(offset_group, image, in_image)];
    }
    if (long_count > 0) {
      sum_long_lists(long_count);
    }
    // Nothing to add: most lists of an image that is divided into many chunks are empty.
    const bool adds_nothing = range.length == 0 && target.gradient == nullptr;
    if (!exists || is_long_list(range.length) || adds_nothing) {
      return;
    }
    const int channel = offset_group * chunk.offset_group_channels + in_group;
    PackSums<kPacks, Real, N> sums = {};
    add(range.begin, range.begin + range.length, rows_of(image, channel), sums);
    const int64_t element = element_of(image, in_image) + channel;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      target.put(element + i * kMostRowThreads * N, sums.pack[i]);
    }
  }

 private:
  RESNET_CUDA_BODY int row_threads() const {
    return kPacks > 1 ? kMostRowThreads : division.row_threads;
  }

  // The first channel of this thread's first pack in a slice, within the offset group.
  RESNET_CUDA_BODY int first_channel(int slice) const {
    return slice * row_threads() * kPacks * N + device::thread() % row_threads() * N;
  }

  RESNET_CUDA_BODY int list_of(int offset_group, int image, int in_image) const {
    const int first = offset_group * lists.images + division.first_image + image;
    return first * division.image_pixels.divisor() + in_image;
  }

  // The first row of an image of the chunk, from a channel on.
  RESNET_CUDA_BODY const T* rows_of(int image, int channel) const {
    const int group = division.group_channels.quotient(channel);
    const int64_t row = static_cast<int64_t>(group * chunk.images + image) * division.image_rows;
    return grad_columns + row * division.row_elements + channel - group * division.row_elements;
  }

  // The first channel of an input pixel, given in strip order.
  RESNET_CUDA_BODY int64_t element_of(int image, int in_image) const {
    const StripPixel pixel = division.order.pixel(in_image);
    const int64_t at = static_cast<int64_t>(image) * division.image_pixels.divisor() +
                       pixel.row * static_cast<int>(chunk.shape.width) + pixel.column;
    return at * static_cast<int>(chunk.shape.channels);
  }

  struct Term {
    Real weight;
    Pack<T, N> pack[kPacks];
  };

  RESNET_CUDA_BODY void load(const ListEntry<Real>& entry, const T* rows, Term& term) const {
    // In bytes: a single instruction multiplies, widens and adds.
    const auto row_bytes = static_cast<uint64_t>(static_cast<uint32_t>(entry.row)) * division.row_bytes;
    const T* row = reinterpret_cast<const T*>(reinterpret_cast<const char*>(rows) + row_bytes);
    term.weight = entry.weight;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      term.pack[i] = load_constant_pack<N>(row + i * kMostRowThreads * N);
    }
  }

  RESNET_CUDA_BODY static void accumulate(const Term& term, PackSums<kPacks, Real, N>& sums) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      Real value[N];
      unpack(term.pack[i], value);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sums.pack[i][j] += term.weight * value[j];
      }
    }
  }

  // Adds the weighted rows of the entries [begin, end). The next step's entries are loaded before this one's rows are
  // used; they may lie past the end (ListStorage has room there), and then no row of theirs is loaded.
  RESNET_CUDA_BODY void add(int begin, int end, const T* rows, PackSums<kPacks, Real, N>& sums) const {
    const ListEntry<Real>* entry = lists.entries + begin;
    ListEntry<Real> next[kStep];
    load_entries(entry, next);
    int left = end - begin;
#pragma unroll 1
    for (; left >= kStep; left -= kStep) {
      Term term[kStep];
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        load(next[i], rows, term[i]);
      }
      entry += kStep;
      load_entries(entry, next);
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        accumulate(term[i], sums);
      }
    }
    if (left > 0) {
      Term term[kStep];
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        load({next[i].weight, i < left ? next[i].row : next[0].row}, rows, term[i]);
      }
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        // A weight of 0 instead would turn an infinite value into NaN.
        if (i < left) {
          accumulate(term[i], sums);
        }
      }
    }
  }

  RESNET_CUDA_BODY static void load_entries(const ListEntry<Real>* entry, ListEntry<Real> (&entries)[kStep]) {
#pragma unroll
    for (int i = 0; i < kStep; ++i) {
      entries[i] = entry[i];
    }
  }

  // All threads. Work: slices of the long lists, among all blocks; those of other chunks are passed over.
  RESNET_CUDA_BODY void sum_long_lists(int long_count) const {
    const int slices = division.slices.divisor();
    const int64_t work_count = static_cast<int64_t>(long_count) * slices;
    for (int64_t work = device::block(); work < work_count; work += device::blocks()) {
      const int which = static_cast<int>(work / slices);
      const int list = lists.long_lists[which];
      const int image_of_group = division.image_pixels.quotient(list);
      const int offset_group = image_of_group / lists.images;
      const int image = image_of_group - offset_group * lists.images - division.first_image;
      if (image >= 0 && image < chunk.images) {
        const int in_image = list - image_of_group * division.image_pixels.divisor();
        sum_long_list(
            list, offset_group, image, in_image, static_cast<int>(work - static_cast<int64_t>(which) * slices));
      }
    }
  }

  // Each group of row_threads threads sums a part of the entries; then the parts are summed, in a fixed order.
  RESNET_CUDA_BODY void sum_long_list(int list, int offset_group, int image, int in_image, int slice) const {
    const ListRange range = lists.ranges[list];
    const int width = row_threads() * kPacks * N;
    const int parts = kThreads / row_threads();
    const int part = device::thread() / row_threads();
    const int in_group = first_channel(slice);
    const int group_channels = chunk.offset_group_channels;
    PackSums<kPacks, Real, N> sums = {};
    if (in_group < group_channels) {
      const int64_t length = range.length;
      add(range.begin + static_cast<int>(length * part / parts),
          range.begin + static_cast<int>(length * (part + 1) / parts),
          rows_of(image, offset_group * group_channels + in_group),
          sums);
    }
    const device::Shared<Real> warp_sums(0, kWarps * kMostWidth);
    const int warp = device::thread() / device::kWarp;
    const int lane = device::thread() % device::kWarp;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        Real sum = sums.pack[i][j];
        for (int distance = device::kWarp / 2; distance >= row_threads(); distance /= 2) {
          sum += RESNET_CUDA_SHUFFLE_XOR(sum, distance);
        }
        if (lane < row_threads()) {
          warp_sums.set(warp * kMostWidth + (i * row_threads() + lane) * N + j, sum);
        }
      }
    }
    RESNET_CUDA_SYNC_BLOCK();
    const int element = device::thread();
    const int first_in_group = slice * width;
    if (element < width && first_in_group + element < group_channels) {
      Real total[1] = {Real(0)};
      for (int i = 0; i < kWarps; ++i) {
        total[0] += warp_sums.get(i * kMostWidth + element);
      }
      target.put(element_of(image, in_image) + offset_group * group_channels + first_in_group + element, total);
    }
    RESNET_CUDA_SYNC_BLOCK();
  }
};

// Launches it for a chunk, whose images begin at image `first_image` of the lists.
template <typename T, typename Real, int N>
void launch_gather(
    const Launcher& launcher,
    const Chunk& chunk,
    const T* grad_columns,
    const InputLists<Real>& lists,
    int first_image,
    const InputGradient<T, Real>& target) {
  const DeformConvShape& shape = chunk.shape;
  const auto launch = [&](auto packs, int row_threads) {
    using Body = GatherInput<T, Real, N, decltype(packs)::value>;
    const auto slices = static_cast<int>(ceil_div(chunk.offset_group_channels, row_threads * N * packs));
    const int pixels = chunk.images * chunk.input_pixels();
    launcher.launch(
        ceil_div(pixels, Body::kThreads / row_threads) * slices * shape.offset_groups,
        Body{
            chunk,
            grad_columns,
            lists,
            target,
            {pixels,
             row_threads,
             chunk.group_channels,
             static_cast<uint32_t>(chunk.group_channels * sizeof(T)),
             chunk.rows * static_cast<int>(shape.out_width * shape.taps()),
             first_image,
             FastDivision32(slices),
             FastDivision32(static_cast<int>(shape.offset_groups)),
             FastDivision32(chunk.input_pixels()),
             FastDivision32(chunk.group_channels),
             StripOrder(static_cast<int>(shape.height), static_cast<int>(shape.width))}});
  };
  constexpr int kTwoPacks = 2 * kMostRowThreads * N;
  if constexpr (N * sizeof(T) == kPackBytes) {
    if (chunk.group_channels % kTwoPacks == 0 && chunk.offset_group_channels % kTwoPacks == 0) {
      return launch(std::integral_constant<int, 2>{}, kMostRowThreads);
    }
  }
  launch(std::integral_constant<int, 1>{}, row_threads_for(chunk, N));
}

}  // namespace resnet_cuda
