// The fused gradient for the weight without warp specialisation: all warps of a block sample and multiply, as in
// cuda_forward_uniform.cuh.
#pragma once

#include "deform_conv_fused/cuda_weight_gradient.cuh"

namespace resnet_cuda {

// A warp samples step i, then starts the products of step i - 1. It plans the pixels that it samples for some steps at
// once, each warp at another step, so that the others hide the latency of its offsets.
template <typename T, int kRows, bool kUniform>
RESNET_CUDA_BODY void FusedWeightGradient<T, kRows, kUniform>::sample_and_multiply(int thread) const {
  const Plan plan(kPlan, kPlanned);
  const int warp = thread / device::kWarp;
  const int lane = thread % device::kWarp;
  const int row = sampled_row<kProducers>(warp, lane % kWarpRows);
  const int lane_step = lane / kWarpRows;
  const typename PixelStep::Thread mine(thread);
  const int64_t end = call.stream.begin(device::block() + 1);
  device::Sums<kTileColumns> own[kProducts];
  Stages sampled(1);
  Stages multiplied(0);
  Part part;
#pragma unroll 1
  for (int64_t place = call.stream.begin(device::block()); place < end; place += part.end - part.first) {
    part = call.stream.part(place, end);
    const Source source = source_of(part.tile);
    int last = 0;  // the stage that is multiplied
    // Starts the products of the last step that was sampled; those before them are done after it.
    const auto start_products = [&](bool first) {
      multiply(thread, multiplied, !first, own);
      device::wait_products<1>();
      if (!first && lane == 0) {
        empty(last).arrive();
      }
      last = multiplied.stage;
      multiplied.advance();
    };
    int in_plan = warp % kPlannedSteps;  // of the steps that are planned at once
    bool planned = false;
#pragma unroll 1
    for (int step = part.first; step < part.end; ++step) {
      if (!planned) {
        // Not of steps before the part's first one.
        set_plan(
            source,
            read_ahead(source, step - in_plan + lane_step, row, lane_step >= in_plan),
            lane_step * kTileUnits * kPixels + row,
            plan);
        RESNET_CUDA_SYNC_WARP();
      }
      empty(sampled.stage).wait(sampled.parity);
      if (thread == 0) {
        copy_grads(source.tile, step, sampled.stage);
      }
      sample_rows<T>(PixelStep(mine, source, in_plan * kTileUnits * kPixels, samples_at(sampled.stage)), plan);
      RESNET_CUDA_SYNC_WARP();
      if (lane == 0) {
        full(sampled.stage).arrive();
      }
      sampled.advance();
      planned = ++in_plan < kPlannedSteps;
      in_plan = planned ? in_plan : 0;
      if (step > part.first) {
        start_products(step == part.first + 1);
      }
    }
    start_products(part.end == part.first + 1);
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      device::finish_products(own[i]);
    }
    if (lane == 0) {
      empty(last).arrive();
    }
    write(thread, part.tile, own);
  }
}

}  // namespace resnet_cuda
