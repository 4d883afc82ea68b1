// The weight between its own order, [O, C/groups, taps], and that of the columns, [O, taps, C/groups].
#pragma once

#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/storage_types.h"
#include "deform_conv/deform_conv_math.h"

namespace resnet_cuda {

// A block moves a tile of up to kTaps x kChannels elements of one output channel through shared memory, so that reads
// and writes are coalesced. (Transpose, common/transpose.cuh, has square tiles: 9 taps would fill a seventh of one.)
// `source` may be several tensors of one size, which are summed in Real.
template <typename From, typename T, bool kTapsLast>
struct ReorderTaps {
  static constexpr int kThreads = 256;
  static constexpr int kTaps = 16;
  static constexpr int kChannels = 128;
  static constexpr int kPitch = kChannels + 1;  // no bank conflicts down a column
  static constexpr int kSteps = kTaps * kChannels / kThreads;
  static_assert(kTaps * kChannels % kThreads == 0, "each thread moves equally many elements of a tile");
  using Real = RealOf<T>;
  static constexpr int kSharedBytes = kTaps * kPitch * static_cast<int>(sizeof(Real));

  const From* source;  // [count][O, taps, C/groups], or [O, C/groups, taps] if not kTapsLast
  T* target;
  int count;
  int64_t elements;  // of one of `count`
  int taps;
  int channels;
  FastDivision32 tap_parts;
  FastDivision32 channel_parts;

  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<Real> tile(0, kTaps * kPitch);
    const auto work = static_cast<int>(device::block());
    const int of_channels = tap_parts.quotient(work);
    const int first_tap = tap_parts.remainder(work) * kTaps;
    const int64_t output = channel_parts.quotient(of_channels);
    const int first_channel = channel_parts.remainder(of_channels) * kChannels;
    const int64_t first = output * taps * channels;

    Real sum[kSteps];
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const Place place(step, !kTapsLast, first_tap, first_channel);
        const bool exists = place.tap < taps && place.channel < channels;
        const From* at = source + i * elements + first + index(place, !kTapsLast);
        const Real value = exists ? static_cast<Real>(*at) : Real(0);
        sum[step] = i == 0 ? value : sum[step] + value;
      }
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      tile.set(Place(step, !kTapsLast, 0, 0).in_tile(), sum[step]);
    }
    RESNET_CUDA_SYNC_BLOCK();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const Place place(step, kTapsLast, first_tap, first_channel);
      if (place.tap < taps && place.channel < channels) {
        target[first + index(place, kTapsLast)] = static_cast<T>(tile.get(Place(step, kTapsLast, 0, 0).in_tile()));
      }
    }
  }

 private:
  // Of a thread's element in one step; neighbouring threads have neighbouring elements in memory.
  struct Place {
    int tap;
    int channel;

    RESNET_CUDA_BODY Place(int step, bool taps_last, int first_tap, int first_channel) {
      const int element = step * kThreads + device::thread();
      tap = first_tap + (taps_last ? element % kTaps : element / kChannels);
      channel = first_channel + (taps_last ? element / kTaps : element % kChannels);
    }
    RESNET_CUDA_BODY int in_tile() const {
      return tap * kPitch + channel;
    }
  };

  RESNET_CUDA_BODY int64_t index(const Place& place, bool taps_last) const {
    return taps_last ? static_cast<int64_t>(place.channel) * taps + place.tap
                     : static_cast<int64_t>(place.tap) * channels + place.channel;
  }
};

template <bool kTapsLast, typename From, typename T>
void reorder_taps(
    const Launcher& launcher,
    const From* source,
    T* target,
    const DeformConvShape& shape,
    int count = 1) {
  using Body = ReorderTaps<From, T, kTapsLast>;
  const auto taps = static_cast<int>(shape.taps());
  const auto channels = static_cast<int>(shape.group_channels());
  const int64_t tap_parts = ceil_div(taps, Body::kTaps);
  const int64_t channel_parts = ceil_div(channels, Body::kChannels);
  launcher.launch(
      shape.out_channels * channel_parts * tap_parts,
      Body{
          source,
          target,
          count,
          shape.out_channels * channels * taps,
          taps,
          channels,
          FastDivision32(static_cast<int>(tap_parts)),
          FastDivision32(static_cast<int>(channel_parts))});
}

}  // namespace resnet_cuda
