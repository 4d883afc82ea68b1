// How a block of the fused forward walks its part of K: section by section, each with a plan in shared memory.
#pragma once

#include "deform_conv_fused/cuda_forward.cuh"

namespace resnet_cuda {

// Calls `run` for the block's part of each section, with its plan, and with the input and the parts of the weight of
// the section's first step.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
template <typename Run>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::for_each_section(int thread, const Run& run)
    const {
  constexpr int kPartElements = kWeightBytes / static_cast<int>(sizeof(T));
  const Tile here = tile();
  const auto taps = static_cast<int>(call.shape.taps());
  const int first_slice = here.group * call.weight.slices;
  const T* part = weights + here.number * call.weight.tile_parts() * kPartElements;
  const Plan plan(kPlan, kMostPlannedTaps * kPixels);
  int step = 0;  // of the section's first tap of the slice
  for (int first_tap = 0; first_tap < taps; first_tap += kMostPlannedTaps) {
    const int tap_count = taps - first_tap < kMostPlannedTaps ? taps - first_tap : kMostPlannedTaps;
    for (int slice = 0; slice < call.weight.slices;) {
      const int offset_group = call.offset_slices.quotient(first_slice + slice);
      const int end_slice = end_of_plan(first_slice, offset_group);
      const int count = (end_slice - slice) * tap_count;
      // Of these, the steps in the block's part of K.
      const int begin = kSplits && here.first_step > step ? here.first_step - step : 0;
      const int end = kSplits && here.end_step - step < count ? here.end_step - step : count;
      if (begin < end) {
        device::sync_threads(1, kProducers);  // all are done with the plan before
        plan_taps(thread, here, offset_group, first_tap, tap_count, plan);
        device::sync_threads(1, kProducers);
        const int64_t first_part = static_cast<int64_t>(slice) * taps + first_tap;
        run(Steps{begin, end, tap_count, taps},
            input_slice(here, first_slice + slice),
            part + first_part * kPartElements,
            plan);
      }
      slice = end_slice;
      step += count;
    }
  }
}

// The slices of an offset group have the same plan: where they end among those of the weight group.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY int FusedForward<T, kTilePixels, kColumns, kUniform>::end_of_plan(int first_slice, int offset_group)
    const {
  const int group_end = (offset_group + 1) * call.offset_slices.divisor() - first_slice;
  return group_end < call.weight.slices ? group_end : call.weight.slices;
}

template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY const T* FusedForward<T, kTilePixels, kColumns, kUniform>::input_slice(const Tile& here, int slice)
    const {
  const int64_t pixels = here.image * call.shape.height * call.shape.width;
  return input + pixels * call.shape.channels + slice * device::kRowElementsOf<T>;
}

// The plan of all pixels; those past the last one read nothing. A thread reads the offsets of all its taps before it
// plans the first of them.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::plan_taps(
    int thread,
    const Tile& here,
    int offset_group,
    int first_tap,
    int tap_count,
    const Plan& plan) const {
  constexpr int kTapStep = kProducers / kPixels;
  constexpr int kTogether = (kMostPlannedTaps + kTapStep - 1) / kTapStep;
  const int index = thread % kPixels;
  const Pixel mine = pixel(here, index);
  const bool inside = index < here.pixels;
  const int pixel_packs = static_cast<int>(call.shape.channels) / N;
  const int image = mine.image * static_cast<int>(call.shape.height * call.shape.width) * pixel_packs;
  const auto place = [&](int tap) {
    return TapPlace{
        call.first_image + here.image + mine.image, mine.place.row, mine.place.column, offset_group, first_tap + tap};
  };
#pragma unroll 1
  for (int first = thread / kPixels; first < tap_count; first += kTogether * kTapStep) {
    TapOffset<float> by[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int tap = first + i * kTapStep;
      by[i] = {0, 0, 0};
      if (inside && tap < tap_count) {
        by[i] = call.positions.template read<float>(call.shape, place(tap));
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int tap = first + i * kTapStep;
      if (tap < tap_count) {
        PlannedTap<float> planned{{-1, -1, -1, -1}, {0, 0, 0, 0}};
        if (inside) {
          planned = planned_tap(
              Positions::sample_at<float>(call.shape, call.kernel_width, place(tap), by[i]), pixel_packs, false);
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            planned.corner[corner] = planned.corner[corner] < 0 ? -1 : planned.corner[corner] + image;
          }
        }
        plan.set(tap * kPixels + index, planned);
      }
    }
  }
}

}  // namespace resnet_cuda
