// The fused forward without warp specialisation: all warps of a block sample and multiply. With it and 256 columns only
// four warps sample, one per scheduler, and what they can issue bounds the kernel.
#pragma once

#include "deform_conv_fused/cuda_forward.cuh"
#include "deform_conv_fused/cuda_forward_sections.cuh"

namespace resnet_cuda {

// A warp samples step i, then starts the products of step i - 1, and the GPU multiplies while the warp samples step
// i + 1. Barriers are per stage and count warps, so that a warp can be a step ahead of others.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::sample_and_multiply(int thread) const {
  constexpr int kPartElements = kWeightBytes / static_cast<int>(sizeof(T));
  const typename SliceStep::Thread mine(thread);
  const bool arrives = thread % device::kWarp == 0;  // for its warp
  // There are as many stages of the weight: one ring serves both.
  Samples sampled(1);
  Samples multiplied(0);
  Sums sums;
  int count = 0;  // of the steps sampled
  // Starts the products of the last step that was sampled; those before them are done after it.
  const auto start_products = [&] {
    const bool first = count == 1;
    multiply(thread, multiplied, multiplied, !first, sums);
    const int before = multiplied.stage == 0 ? kSampleStages - 1 : multiplied.stage - 1;
    multiplied.advance();
    device::wait_products<1>();
    if (!first && arrives) {
      empty_samples(before).arrive();
      empty_weights(before).arrive();
    }
  };
  for_each_section(thread, [&](const Steps& steps, const T* source, const T* parts, const Plan& plan) {
    const int slice = steps.begin / steps.tap_count;
    int tap = steps.begin - slice * steps.tap_count;
    int part = slice * steps.taps + tap;
    const T* channels = source + slice * device::kRowElementsOf<T>;
#pragma unroll 1
    for (int left = steps.end - steps.begin; left > 0; --left) {
      if (thread == 0) {
        copy_weight(sampled, parts + static_cast<int64_t>(part) * kPartElements);
      }
      empty_samples(sampled.stage).wait(sampled.parity);
      sample_rows<T>(SliceStep(mine, channels, tap * kPixels, kSamples + sampled.stage * kSamplesBytes), plan);
      RESNET_CUDA_SYNC_WARP();
      if (arrives) {
        full_samples(sampled.stage).arrive();
      }
      sampled.advance();
      ++part;
      if (++tap == steps.tap_count) {
        tap = 0;
        part += steps.taps - steps.tap_count;
        channels += device::kRowElementsOf<T>;
      }
      if (count > 0) {
        start_products();
      }
      ++count;
    }
  });
  start_products();
  device::finish_products(sums);
  finish(thread, sums);
}

}  // namespace resnet_cuda
