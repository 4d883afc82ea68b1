// The weight's gradient of the deformable convolution without columns in memory, by the warpgroup layer: an implicit
// matrix product, over the pixels, of the output's gradient with samples that each block makes in shared memory.
#pragma once

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv_fused/cuda_producer.cuh"
#include "deform_conv_fused/cuda_weight_gradient_call.cuh"

namespace resnet_cuda {

// A block sums its part of the list of all tiles' steps. A step: 64 pixels, kRows output channels, two units. Both
// operands are of kMN: a row has one pixel. Two warpgroups multiply kRows / 2 output channels each; the others plan
// and sample, and start the copies of the output's gradient.
//
// kUniform: no warp specialisation. All 16 warps sample, a row of each unit per thread, and multiply, each warpgroup 64
// output channels, while the samples of the next step are made: see cuda_weight_gradient_uniform.cuh. With 128 output
// channels two warpgroups have the same, and each half of a step's pixels.
template <typename T, int kRows, bool kUniform>
struct FusedWeightGradient {
  static_assert(kRows == 128 || kRows == 256);
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kPixels = PackedOutputGradient::kPixels;
  // With specialised warps and 256 rows the sums leave no registers for more than 384 threads.
  static constexpr int kProducers = kUniform ? 512 : kRows == 256 ? 128 : 256;
  static constexpr int kConsumers = kUniform ? kProducers : 2 * device::kWarpgroup;
  static constexpr int kThreads = kUniform ? kProducers : kConsumers + kProducers;
  static constexpr int kWarpgroups = kThreads / device::kWarpgroup;
  static constexpr int kLaunchedRegisters = device::launched_registers(kThreads);
  static constexpr int kConsumerRegisters = kRows == 256 ? 176 : 112;
  static constexpr int kProducerRegisters = kRows == 256 ? 152 : 144;
  static_assert(
      kUniform ||
      kConsumers * kConsumerRegisters + kProducers * kProducerRegisters <= device::kMultiprocessorRegisters);

  static constexpr int kRowBlocks = kRows / device::kProductRows;
  static constexpr int kConsumerGroups = kConsumers / device::kWarpgroup;
  static constexpr int kRowGroups = kConsumerGroups < kRowBlocks ? kConsumerGroups : kRowBlocks;
  static constexpr int kProducts = kRowBlocks / kRowGroups;         // of a warpgroup
  static constexpr int kDepthParts = kConsumerGroups / kRowGroups;  // of the pixels of a step
  static constexpr int kDepthPixels = kPixels / kDepthParts;
  using Layout = TileSums<kRows, kDepthParts>;

  static constexpr int kRowParts = kRows / PackedOutputGradient::kChannels;
  static constexpr int kGradBytes = kRowParts * PackedOutputGradient::kBytes;
  static constexpr int kSliceBytes = kPixels * device::kSwizzledRow;
  static constexpr int kStageBytes = kGradBytes + kTileUnits * kSliceBytes;
  static constexpr int kStages = 3;

  // A warp plans the pixels that it samples itself, of as many steps at once as it has lanes for.
  static constexpr int kWarpRows = kPixels / (kProducers / device::kWarp);
  static constexpr int kPlannedSteps = device::kWarp / kWarpRows;
  // With specialised warps twice: while the last of these steps are sampled, loads for the next ones begin.
  static constexpr int kPlanEntries = kPlannedSteps * kTileUnits * kPixels;
  static constexpr int kPlanned = kUniform ? kPlanEntries : 2 * kPlanEntries;

  static constexpr int kPlan = kStages * kStageBytes;
  static constexpr int kBarriers = kPlan + kPlanned * static_cast<int>(sizeof(PlannedTap<float>));  // of 8 bytes each
  static constexpr int kSharedBytes = kBarriers + 2 * kStages * 8;

  WeightGradientCall call;
  const T* input;  // [images, H, W, C], of the chunk
  const T* grads;  // parts, see PackedOutputGradient
  float* sums;     // [places of the stream][Layout]

  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    if (thread == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        full(stage).init(kProducers / device::kWarp + 1);
        empty(stage).init(kConsumers / device::kWarp);
      }
      device::publish_barriers();
    }
    RESNET_CUDA_SYNC_BLOCK();
    if constexpr (kUniform) {
      sample_and_multiply(thread);
    } else if (thread >= kConsumers) {
      device::take_registers<kLaunchedRegisters, kProducerRegisters>();
      produce(thread - kConsumers);
    } else {
      device::take_registers<kLaunchedRegisters, kConsumerRegisters>();
      consume(thread);
    }
  }

 private:
  using Stages = device::Ring<kStages>;
  using Part = StreamK::Part;
  using Plan = device::Shared<PlannedTap<float>>;

  RESNET_CUDA_BODY static device::PhaseBarrier full(int stage) {
    return device::PhaseBarrier(kBarriers + stage * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty(int stage) {
    return device::PhaseBarrier(kBarriers + (kStages + stage) * 8);
  }
  RESNET_CUDA_BODY static constexpr int grads_at(int stage) {
    return stage * kStageBytes;
  }
  RESNET_CUDA_BODY static constexpr int samples_at(int stage) {
    return stage * kStageBytes + kGradBytes;
  }

  // --- producers

  // Of a tile, what its samples are taken from.
  struct Source {
    WeightTile tile;
    int tap[kTileUnits];
    int offset_group[kTileUnits];
    const T* channels[kTileUnits];  // of the chunk's first pixel
    int plans;                      // 1 where both units read the same positions
  };
  // A lane's pixel of a later step, and its offsets, which are read while others are sampled.
  struct Ahead {
    int image;  // of the chunk
    StripPixel place;
    bool inside;
    TapOffset<float> by[kTileUnits];
  };

  RESNET_CUDA_BODY void produce(int thread) const {
    const int64_t end = call.stream.begin(device::block() + 1);
    Stages ring(1);
    Part part;
    for (int64_t place = call.stream.begin(device::block()); place < end; place += part.end - part.first) {
      part = call.stream.part(place, end);
      produce_part(thread, part, source_of(part.tile), ring);
    }
  }

  RESNET_CUDA_BODY Source source_of(int number) const {
    Source source;
    source.tile = call.tile<kRows>(number);
#pragma unroll
    for (int i = 0; i < kTileUnits; ++i) {
      const int unit = source.tile.first_unit + i;
      const WeightUnit at = call.unit(unit < call.units ? unit : call.units - 1);
      const int slice = source.tile.group * call.slices.divisor() + at.slice;
      source.tap[i] = at.tap;
      source.offset_group[i] = call.offset_slices.quotient(slice);
      source.channels[i] = input + slice * kSliceChannels;
    }
    const bool same = source.tap[0] == source.tap[1] && source.offset_group[0] == source.offset_group[1];
    source.plans = same ? 1 : kTileUnits;
    return source;
  }

  // 64 pixels of both units.
  struct PixelStep : SliceThread<T, kProducers, kPixels> {
    using Thread = SliceThread<T, kProducers, kPixels>;
    static constexpr int kUnitCount = Thread::kCount;
    static constexpr int kCount = kTileUnits * kUnitCount;

    const T* channels[kTileUnits];  // of the chunk's first pixel
    int first_planned;
    int unit_plan;  // from the first unit's plan to the second's
    int stage;      // byte of shared memory

    RESNET_CUDA_BODY PixelStep(const Thread& thread, const Source& source, int planned, int at)
        : Thread(thread), first_planned(planned), unit_plan(source.plans == 1 ? 0 : kPixels), stage(at) {
#pragma unroll
      for (int i = 0; i < kTileUnits; ++i) {
        channels[i] = source.channels[i] + thread.chunk * N;
      }
    }
    RESNET_CUDA_BODY const T* source(int row) const {
      return channels[row / kUnitCount];
    }
    RESNET_CUDA_BODY int planned(int row) const {
      return first_planned + row / kUnitCount * unit_plan + this->row(row % kUnitCount);
    }
    RESNET_CUDA_BODY int place(int row) const {
      return stage + row / kUnitCount * kSliceBytes + this->byte(row % kUnitCount);
    }
  };

  RESNET_CUDA_BODY void produce_part(int thread, const Part& part, const Source& source, Stages& ring) const {
    const Plan plan(kPlan, kPlanned);
    const int lane = thread % device::kWarp;
    const int row = sampled_row<kProducers>(thread / device::kWarp, lane % kWarpRows);
    const int lane_step = lane / kWarpRows;
    const typename PixelStep::Thread mine(thread);
    int buffer = 0;  // of the plan
    const auto set_plan_of = [&](const Ahead& ahead) {
      set_plan(source, ahead, buffer * kPlanEntries + lane_step * kTileUnits * kPixels + row, plan);
      RESNET_CUDA_SYNC_WARP();
    };
    const auto step_at = [&](int step, int stage) {
      return PixelStep(mine, source, buffer * kPlanEntries + step * kTileUnits * kPixels, samples_at(stage));
    };
    const Ahead at_first = read_ahead(source, part.first + lane_step, row);
    Ahead ahead = read_ahead(source, part.first + kPlannedSteps + lane_step, row);
    set_plan_of(at_first);
    RowSampler<T> sampler(plan, call.shape.batch < 0 ? ~0u : 0u);
    PixelStep next = step_at(0, ring.stage);
    sampler.begin(next);
    int in_plan = 0;  // of the steps that are planned at once
#pragma unroll 1
    for (int step = part.first; step < part.end; ++step) {
      empty(ring.stage).wait(ring.parity);
      if (thread == 0) {
        copy_grads(source.tile, step, ring.stage);
      }
      const int stage = ring.stage;
      ring.advance();
      const PixelStep now = next;
      if (++in_plan == kPlannedSteps) {
        in_plan = 0;
        buffer ^= 1;
        // What lies there was last read before the step before: each ends with a barrier of the warp.
        set_plan_of(ahead);
        ahead = read_ahead(source, step + 1 + kPlannedSteps + lane_step, row);
      }
      next = step_at(in_plan, ring.stage);
      sampler.sample(now, next);
      RESNET_CUDA_SYNC_WARP();
      if (lane == 0) {
        full(stage).arrive();
      }
    }
  }

  RESNET_CUDA_BODY Ahead read_ahead(const Source& source, int step, int row, bool needed = true) const {
    Ahead ahead{};
    const int pixel = step * kPixels + row;
    ahead.inside = needed && pixel < call.parts.pixels;
    if (ahead.inside) {
      ahead.image = call.image_pixels.quotient(pixel);
      ahead.place = call.order.pixel(pixel - ahead.image * call.image_pixels.divisor());
#pragma unroll
      for (int i = 0; i < kTileUnits; ++i) {
        if (i < source.plans) {
          ahead.by[i] = call.positions.template read<float>(call.shape, place_of(source, ahead, i));
        }
      }
    }
    return ahead;
  }

  RESNET_CUDA_BODY TapPlace place_of(const Source& source, const Ahead& ahead, int unit) const {
    return {
        call.first_image + ahead.image,
        ahead.place.row,
        ahead.place.column,
        source.offset_group[unit],
        source.tap[unit]};
  }

  // Of a pixel past the last one the plan reads nothing.
  RESNET_CUDA_BODY void set_plan(const Source& source, const Ahead& ahead, int at, const Plan& plan) const {
    const int pixel_packs = static_cast<int>(call.shape.channels) / N;
    const int first = ahead.image * static_cast<int>(call.shape.height * call.shape.width) * pixel_packs;
#pragma unroll
    for (int i = 0; i < kTileUnits; ++i) {
      if (i < source.plans) {
        PlannedTap<float> planned{{-1, -1, -1, -1}, {0, 0, 0, 0}};
        if (ahead.inside) {
          planned = planned_tap(
              Positions::sample_at<float>(call.shape, call.kernel_width, place_of(source, ahead, i), ahead.by[i]),
              pixel_packs,
              false);
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            planned.corner[corner] = planned.corner[corner] < 0 ? -1 : planned.corner[corner] + first;
          }
        }
        plan.set(at + i * kPixels, planned);
      }
    }
  }

  // Past a group's last part its last one once more, for rows that nobody reads.
  RESNET_CUDA_BODY void copy_grads(const WeightTile& tile, int step, int stage) const {
    constexpr int kPartElements = PackedOutputGradient::kBytes / static_cast<int>(sizeof(T));
    const device::PhaseBarrier full_stage = full(stage);
    full_stage.arrive_and_expect(kGradBytes);
    const int64_t first = static_cast<int64_t>(step) * call.parts.channel_parts() + tile.group * call.parts.group_parts;
#pragma unroll
    for (int i = 0; i < kRowParts; ++i) {
      const int part = tile.first_part + i;
      const T* source =
          grads + (first + (part < call.parts.group_parts ? part : call.parts.group_parts - 1)) * kPartElements;
      device::copy_bulk(
          grads_at(stage) + i * PackedOutputGradient::kBytes, source, PackedOutputGradient::kBytes, full_stage);
    }
  }

  // --- consumers

  RESNET_CUDA_BODY void consume(int thread) const {
    const int64_t end = call.stream.begin(device::block() + 1);
    device::Sums<kTileColumns> own[kProducts];
    Stages ring(0);
    Part part;
#pragma unroll 1
    for (int64_t place = call.stream.begin(device::block()); place < end; place += part.end - part.first) {
      part = call.stream.part(place, end);
      int last = 0;  // the stage before
#pragma unroll 1
      for (int step = part.first; step < part.end; ++step) {
        multiply(thread, ring, step > part.first, own);
        device::wait_products<1>();
        if (step > part.first && thread % device::kWarp == 0) {
          empty(last).arrive();
        }
        last = ring.stage;
        ring.advance();
      }
#pragma unroll
      for (int i = 0; i < kProducts; ++i) {
        device::finish_products(own[i]);
      }
      if (thread % device::kWarp == 0) {
        empty(last).arrive();
      }
      write(thread, part.tile, own);
    }
  }

  // Begins a step's products of a warpgroup.
  RESNET_CUDA_BODY void
  multiply(int thread, const Stages& ring, bool accumulate, device::Sums<kTileColumns> (&own)[kProducts]) const {
    constexpr auto kMN = device::Major::kMN;
    constexpr int kStep = device::kProductStep<kMN>;
    const int warpgroup = thread / device::kWarpgroup;
    full(ring.stage).wait(ring.parity);
    device::fence_async_proxy();  // here, not after the samples are written: those who write have loads in flight
    const int first_pixel = kDepthParts > 1 ? warpgroup / kRowGroups * kDepthPixels : 0;
    const int depth = first_pixel / device::kProductDepth * kStep;
    const device::Descriptor left = device::operand_at<kMN>(
        grads_at(ring.stage) + warpgroup % kRowGroups * kProducts * PackedOutputGradient::kBytes + depth,
        PackedOutputGradient::kBytes);
    const device::Descriptor right = device::operand_at<kMN>(samples_at(ring.stage) + depth, kSliceBytes);
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      device::begin_products(own[i]);
    }
#pragma unroll
    for (int pixels = 0; pixels < kDepthPixels / device::kProductDepth; ++pixels) {
#pragma unroll
      for (int i = 0; i < kProducts; ++i) {
        device::multiply<T, kMN, kMN>(
            own[i],
            left.advanced(i * PackedOutputGradient::kBytes + pixels * kStep),
            right.advanced(pixels * kStep),
            accumulate || pixels > 0);
      }
    }
    device::commit_products();
  }

  RESNET_CUDA_BODY void write(int thread, int tile, const device::Sums<kTileColumns> (&own)[kProducts]) const {
    const int warpgroup = thread / device::kWarpgroup;
    const int first_block = warpgroup / kRowGroups * kRowBlocks + warpgroup % kRowGroups * kProducts;
    const int in_group = thread % device::kWarpgroup;
    float* target = sums + StreamK::place(device::block(), tile) * Layout::kElements;
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
#pragma unroll
      for (int quad = 0; quad < Layout::kQuads; ++quad) {
        Pack<float, 4> pack;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          pack.element[j] = own[i].get(quad * 4 + j);
        }
        store_pack(target + Layout::quad(first_block + i, quad, in_group) * 4, pack);
      }
    }
  }

  // --- without warp specialisation

  RESNET_CUDA_BODY void sample_and_multiply(int thread) const;
};

}  // namespace resnet_cuda
