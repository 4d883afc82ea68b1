// The fused forward with warp specialisation: producers sample into the stages that consumers multiply.
#pragma once

#include "deform_conv_fused/cuda_forward.cuh"
#include "deform_conv_fused/cuda_forward_sections.cuh"

namespace resnet_cuda {

template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::produce(int thread) const {
  Samples samples(1);
  Weights weight_ring(1);
  for_each_section(thread, [&](const Steps& steps, const T* source, const T* part, const Plan& plan) {
    produce_steps(thread, steps, source, part, plan, samples, weight_ring);
  });
}

// `source` and `part` are those of step 0.
template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::produce_steps(
    int thread,
    const Steps& steps,
    const T* source,
    const T* part,
    const Plan& plan,
    Samples& samples,
    Weights& weight_ring) const {
  constexpr int kPartElements = kWeightBytes / static_cast<int>(sizeof(T));
  const typename SliceStep::Thread mine(thread);
  int slice = steps.begin / steps.tap_count;
  int tap = steps.begin - slice * steps.tap_count;
  const auto step_at = [&](int stage) {
    return SliceStep(mine, source + slice * device::kRowElementsOf<T>, tap * kPixels, kSamples + stage * kSamplesBytes);
  };
  RowSampler<T> sampler(plan, call.shape.batch < 0 ? ~0u : 0u);
  SliceStep next = step_at(samples.stage);
  sampler.begin(next);
#pragma unroll 1
  for (int step = steps.begin; step < steps.end; ++step) {
    if (thread == 0) {
      const int64_t number = static_cast<int64_t>(slice) * steps.taps + tap;
      copy_weight(weight_ring, part + number * kPartElements);
      weight_ring.advance();
    }
    empty_samples(samples.stage).wait(samples.parity);
    const int stage = samples.stage;
    samples.advance();
    const SliceStep now = next;
    if (step + 1 < steps.end) {
      if (++tap == steps.tap_count) {
        tap = 0;
        ++slice;
      }
      next = step_at(samples.stage);
    }
    sampler.sample(now, next);
    RESNET_CUDA_SYNC_WARP();
    if (thread % device::kWarp == 0) {
      full_samples(stage).arrive();
    }
  }
}

template <typename T, int kTilePixels, int kColumns, bool kUniform>
RESNET_CUDA_BODY void FusedForward<T, kTilePixels, kColumns, kUniform>::consume(int thread) const {
  const Tile here = tile();
  const int steps = here.end_step - here.first_step;
  Sums sums;
  Samples samples(0);
  Weights weight_ring(0);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    multiply(thread, samples, weight_ring, step > 0, sums);
    // Not until the next step's samples are there, which take longer: the copy of the weight can begin.
    device::wait_products<0>();
    if (thread % device::kWarp == 0) {
      empty_samples(samples.stage).arrive();
      empty_weights(weight_ring.stage).arrive();
    }
    samples.advance();
    weight_ring.advance();
  }
  device::finish_products(sums);
  finish(thread, sums);
}

}  // namespace resnet_cuda
