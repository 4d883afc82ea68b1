// The weight between its own order, [O, C/groups, taps], and that of the columns, [O, taps, C/groups].
#pragma once

#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/pack.cuh"
#include "common/storage_types.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// Index: element of the target. `source` may be several tensors of one size, which are summed.
template <typename From, typename T, bool kTapsLast>
struct ReorderTaps {
  const From* source;  // [count][O, taps, C/groups] with kTapsLast, else [O, C/groups, taps]
  T* target;
  int count;
  int64_t elements;        // of one of `count`
  FastDivision inner;      // the last size of the target
  FastDivision of_output;  // taps * C/groups

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t in_output = of_output.remainder(index);
    const int64_t row = inner.quotient(in_output);
    const int64_t column = in_output - row * inner.divisor();
    const int64_t rows = of_output.divisor() / inner.divisor();
    const From* at = source + (index - in_output) + column * rows + row;
    RealOf<T> sum = static_cast<RealOf<T>>(*at);
    for (int i = 1; i < count; ++i) {
      sum += static_cast<RealOf<T>>(at[i * elements]);
    }
    target[index] = static_cast<T>(sum);
  }
};

// Index: M neighbouring channels of one output channel, with 9 taps each, which are 9 packs in either order: so a
// thread transposes in registers.
template <typename From, typename T, int M, bool kTapsLast>
struct ReorderNineTaps {
  static constexpr int kTaps = 9;
  static constexpr int kBlocksPerMultiprocessor = 2;  // registers for 9 packs of the sum and 9 to be added
  using Real = RealOf<T>;

  const From* source;
  T* target;
  int count;
  int64_t elements;
  FastDivision packs;  // of M channels, in a weight group

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t in_weight = index * (M * kTaps);
    const int64_t output = packs.quotient(index);
    const int64_t channels = packs.divisor() * M;
    const int64_t in_columns = output * kTaps * channels + (index - output * packs.divisor()) * M;
    // The 9 packs lie behind one another, or a row of channels apart.
    const From* from = source + (kTapsLast ? in_columns : in_weight);
    const int64_t from_step = kTapsLast ? channels : M;
    Real value[kTaps * M];
    read(from, from_step, value);
#pragma unroll 1
    for (int i = 1; i < count; ++i) {
      Real more[kTaps * M];
      read(from + i * elements, from_step, more);
#pragma unroll
      for (int j = 0; j < kTaps * M; ++j) {
        value[j] += more[j];
      }
    }
    T* to = target + (kTapsLast ? in_weight : in_columns);
    const int64_t to_step = kTapsLast ? M : channels;
#pragma unroll
    for (int pack = 0; pack < kTaps; ++pack) {
      Real ordered[M];
#pragma unroll
      for (int j = 0; j < M; ++j) {
        const int element = pack * M + j;
        ordered[j] = kTapsLast ? value[element % kTaps * M + element / kTaps] : value[j * kTaps + pack];
      }
      store_pack(to + pack * to_step, pack_of<T, M>(ordered));
    }
  }

 private:
  RESNET_CUDA_BODY static void read(const From* from, int64_t step, Real (&value)[kTaps * M]) {
#pragma unroll
    for (int pack = 0; pack < kTaps; ++pack) {
      Real part[M];
      unpack(load_constant_pack<M>(from + pack * step), part);
#pragma unroll
      for (int j = 0; j < M; ++j) {
        value[pack * M + j] = part[j];
      }
    }
  }
};

template <bool kTapsLast, typename From, typename T>
void reorder_taps(
    const Launcher& launcher,
    const From* source,
    T* target,
    const DeformConvShape& shape,
    int count = 1) {
  constexpr int kChannels = sizeof(From) == 8 ? 2 : 4;
  using Nine = ReorderNineTaps<From, T, kChannels, kTapsLast>;
  const int64_t channels = shape.group_channels();
  const int64_t elements = shape.out_channels * channels * shape.taps();
  if (shape.taps() == Nine::kTaps && channels % kChannels == 0 && is_aligned(source, kChannels * sizeof(From)) &&
      is_aligned(target, kChannels * sizeof(T))) {
    launcher.run(
        elements / (kChannels * Nine::kTaps),
        Nine{source, target, count, elements, FastDivision(channels / kChannels)});
    return;
  }
  const int64_t inner = kTapsLast ? shape.taps() : channels;
  launcher.run(
      elements,
      ReorderTaps<From, T, kTapsLast>{
          source, target, count, elements, FastDivision(inner), FastDivision(channels * shape.taps())});
}

}  // namespace resnet_cuda
