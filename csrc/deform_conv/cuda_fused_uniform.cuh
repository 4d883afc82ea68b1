// The fused forward without roles: all warps of a block sample and multiply. With roles and 256 columns only four warps
// sample, one per scheduler, and what they can issue bounds the kernel.
#pragma once

#include "deform_conv/cuda_fused_forward.cuh"

namespace resnet_cuda {

// A warp samples step i, then starts the products of step i - 1, and the GPU multiplies while the warp samples step
// i + 1. Barriers are per stage and count warps, so that a warp can be a step ahead of others.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::sample_and_multiply(int thread) const {
  constexpr int kPartElements = kWeightBytes / static_cast<int>(sizeof(T));
  const Tile here = tile();
  const auto taps = static_cast<int>(call.shape.taps());
  const int first_slice = here.group * call.weight.slices;
  const T* part = weights + here.number * call.weight.tile_parts() * kPartElements;
  const device::Shared<PlannedTap<float>> plan(kPlan, kMostPlannedTaps * kPixels);
  const typename SliceStep::Thread mine(thread);
  const bool arrives = thread % device::kWarp == 0;  // for its warp
  // There are as many stages of the weight: one ring serves both.
  Samples sampled(1);
  Samples multiplied(0);
  Samples freed(0);
  Sums sums;
  bool any = false;  // samples that are not multiplied yet
  int products = 0;
  // Starts the products of the last step that was sampled; those before them are done after it.
  const auto start_products = [&] {
    multiply(thread, multiplied, multiplied, products > 0, sums);
    multiplied.advance();
    device::wait_products<1>();
    if (products > 0) {
      if (arrives) {
        empty_samples(freed.stage).arrive();
        empty_weights(freed.stage).arrive();
      }
      freed.advance();
    }
    ++products;
  };
  for (int first_tap = 0; first_tap < taps; first_tap += kMostPlannedTaps) {
    const int tap_count = taps - first_tap < kMostPlannedTaps ? taps - first_tap : kMostPlannedTaps;
    for (int slice = 0; slice < call.weight.slices;) {
      const int offset_group = call.offset_slices.quotient(first_slice + slice);
      const int end_slice = end_of_plan(first_slice, offset_group);
      device::sync_threads(1, kThreads);  // all are done with the plan before
      plan_taps(thread, here, offset_group, first_tap, tap_count, plan);
      device::sync_threads(1, kThreads);
#pragma unroll 1
      for (; slice < end_slice; ++slice) {
        const T* source = input_slice(here, first_slice + slice);
        const T* parts = part + (static_cast<int64_t>(slice) * taps + first_tap) * kPartElements;
#pragma unroll 1
        for (int tap = 0; tap < tap_count; ++tap) {
          if (thread == 0) {
            copy_weight(sampled, parts + static_cast<int64_t>(tap) * kPartElements);
          }
          empty_samples(sampled.stage).wait(sampled.parity);
          sample_rows<T>(SliceStep(mine, source, tap * kPixels, kSamples + sampled.stage * kSamplesBytes), plan);
          RESNET_CUDA_SYNC_WARP();
          if (arrives) {
            full_samples(sampled.stage).arrive();
          }
          sampled.advance();
          if (any) {
            start_products();
          }
          any = true;
        }
      }
    }
  }
  start_products();
  device::finish_products(sums);
  device::sync_threads(2, kThreads);  // all are done with the samples, whose memory the results now pass through
  write(thread, sums);
}

}  // namespace resnet_cuda
