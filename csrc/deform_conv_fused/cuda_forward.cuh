// The forward of the deformable convolution without columns in memory: a block samples them for 128 or 64 output pixels
// into shared memory and multiplies them there by wgmma: an implicit matrix product (implicit GEMM).
#pragma once

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_epilogue.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv_fused/cuda_packed_weight.cuh"
#include "deform_conv_fused/cuda_producer.cuh"

namespace resnet_cuda {

// A call of the fused forward. Pixels are counted in strip order, image after image.
struct FusedCall {
  DeformConvShape shape;
  Positions positions;
  PackedWeight weight;
  StripOrder order;
  FastDivision32 image_pixels;  // of the output
  FastDivision32 kernel_width;
  FastDivision32 tiles;          // column tiles of all groups: blocks of the same pixels
  FastDivision32 column_tiles;   // of a group
  FastDivision32 splits;         // parts of K: blocks of the same pixels and columns
  FastDivision32 offset_slices;  // of an offset group's channels
  int64_t first_image;           // of the batch: that of the positions for the input's first one
  int64_t pixels;                // of all images
};

// A block: kTilePixels output pixels, kColumns output channels of one group and a part of K. A warpgroup multiplies 64
// pixels; others sample, and start the copies of the weight. K is walked by sections of at most nine taps of one offset
// group, whose plan is in shared memory; in a section by slices of 64 channels, in a slice by taps. T float: in TF32,
// by slices of 32 channels.
//
// kUniform: no warp specialisation. All warps sample, two rows of a step per thread, and multiply, while the samples of
// the next step are made: see cuda_forward_uniform.cuh. A warpgroup has 64 pixels and 128 columns; with 128 columns in
// all, two warpgroups have the same and each half of a step's channels.
template <typename T, int kTilePixels, int kColumns, bool kUniform = false>
struct FusedForward {
  static_assert(kTilePixels == 128 || (kTilePixels == 64 && kColumns == 128));
  static_assert(kColumns == 128 || kColumns == 256);
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowPacks = device::kSwizzledRow / kPackBytes;  // of a slice
  static constexpr int kPixels = kTilePixels;
  // With specialised warps and 256 columns the sums leave no registers for more than 384 threads. Of 64 pixels two
  // blocks of 256 threads, so of 128 registers each, run at once.
  static constexpr int kBlocksPerMultiprocessor = kPixels == 64 ? 2 : 1;
  static constexpr bool kSplits = kPixels == 64;                    // whether K may be divided
  static constexpr int kRowParts = kPixels / device::kProductRows;  // of a tile's pixels, by warpgroup
  static constexpr int kProducers = kUniform ? kPixels * 4 : kPixels == 64 || kColumns == 256 ? 128 : 256;
  static constexpr int kConsumers = kUniform ? kProducers : kRowParts * device::kWarpgroup;
  static constexpr int kThreads = kUniform ? kProducers : kConsumers + kProducers;
  static constexpr int kPartColumns = kUniform ? 128 : kColumns;
  static constexpr int kColumnParts = kColumns / kPartColumns;
  // Of the channels of a step. Each has its own sums, which are added at the end.
  static constexpr int kDepthParts = kConsumers / device::kWarpgroup / (kRowParts * kColumnParts);
  static constexpr int kPartProducts = device::kRowProducts / kDepthParts;
  static_assert(
      kColumnParts == 1 || kDepthParts == 1,
      "the warpgroups beyond those of the pixels' rows are of one kind");
  static constexpr int kWarpgroups = kThreads / device::kWarpgroup;
  static constexpr int kLaunchedRegisters = device::launched_registers(kBlocksPerMultiprocessor * kThreads);
  static constexpr int kConsumerRegisters = kColumns == 256 ? 176 : 112;
  static constexpr int kProducerRegisters = kColumns == 256 ? 152 : 144;
  static_assert(
      kUniform || kConsumers * kConsumerRegisters + kProducers * kProducerRegisters <=
                      device::kMultiprocessorRegisters / kBlocksPerMultiprocessor);

  static constexpr int kSamplesBytes = kPixels * device::kSwizzledRow;
  static constexpr int kWeightBytes = kColumns * device::kSwizzledRow;
  static constexpr int kSampleStages = 3;
  static constexpr int kWeightStages = kColumns == 256 && !kUniform ? 2 : 3;
  static constexpr int kMostPlannedTaps = kMostTapsPerBlock;

  static constexpr int kSamples = 0;
  static constexpr int kWeights = kSamples + kSampleStages * kSamplesBytes;
  static constexpr int kPlan = kWeights + kWeightStages * kWeightBytes;
  static constexpr int kBarriers =
      kPlan + kMostPlannedTaps * kPixels * static_cast<int>(sizeof(PlannedTap<float>));  // of 8 bytes each
  static constexpr int kSharedBytes = kBarriers + 2 * (kSampleStages + kWeightStages) * 8;
  // Between the warpgroups of two depth parts: the sums of 64 pixels.
  static constexpr int kExchangedBytes = device::kProductRows * kPartColumns * 4;
  // A multiprocessor has 228 KiB, of which each block costs one more.
  static_assert(kBlocksPerMultiprocessor * (kSharedBytes + 1024) <= 228 << 10);

  FusedCall call;
  const T* input;     // [images, H, W, C]
  const T* weights;   // parts, see PackedWeight
  const T* bias;      // [O], or null
  T* output;          // [images, Ho, Wo, O]
  float* split_sums;  // of the parts of K, [splits][images, Ho, Wo, O], for SumSplits; null where there is one part
  bool relu;

  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    if (thread == 0) {
      for (int stage = 0; stage < kSampleStages; ++stage) {
        full_samples(stage).init(kProducers / device::kWarp);
        empty_samples(stage).init(kConsumers / device::kWarp);
      }
      for (int stage = 0; stage < kWeightStages; ++stage) {
        full_weights(stage).init(1);
        empty_weights(stage).init(kConsumers / device::kWarp);
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
  using Samples = device::Ring<kSampleStages>;
  using Weights = device::Ring<kWeightStages>;
  using Sums = device::Sums<kPartColumns>;
  using Plan = device::Shared<PlannedTap<float>>;

  RESNET_CUDA_BODY static device::PhaseBarrier full_samples(int stage) {
    return device::PhaseBarrier(kBarriers + stage * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty_samples(int stage) {
    return device::PhaseBarrier(kBarriers + (kSampleStages + stage) * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier full_weights(int stage) {
    return device::PhaseBarrier(kBarriers + (2 * kSampleStages + stage) * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty_weights(int stage) {
    return device::PhaseBarrier(kBarriers + (2 * kSampleStages + kWeightStages + stage) * 8);
  }

  // What the block works on.
  struct Tile {
    int64_t image;     // of its first pixel
    int first_pixel;   // in that image
    int pixels;        // at most kPixels
    int group;         // of the weight
    int first_column;  // in the group
    int number;        // among the tiles of the weight parts
    int split;         // its part of K
    int first_step;
    int end_step;
  };

  RESNET_CUDA_BODY Tile tile() const {
    const auto block = static_cast<int>(device::block());
    const auto steps = static_cast<int>(call.weight.tile_parts());
    int whole = block;
    int split = 0;
    int first_step = 0;
    int end_step = steps;
    if constexpr (kSplits) {
      whole = call.splits.quotient(block);
      split = block - whole * call.splits.divisor();
      first_step = call.splits.quotient(split * steps);
      end_step = call.splits.quotient((split + 1) * steps);
    }
    const int pixel_tile = call.tiles.quotient(whole);
    const int number = whole - pixel_tile * call.tiles.divisor();
    const int64_t first = static_cast<int64_t>(pixel_tile) * kPixels;
    const int64_t image = first / call.image_pixels.divisor();
    const int group = call.column_tiles.quotient(number);
    return {
        image,
        static_cast<int>(first - image * call.image_pixels.divisor()),
        static_cast<int>(smaller(kPixels, call.pixels - first)),
        group,
        (number - group * call.column_tiles.divisor()) * kColumns,
        number,
        split,
        first_step,
        end_step};
  }

  struct Pixel {
    int image;  // after the tile's first one
    StripPixel place;
  };
  RESNET_CUDA_BODY Pixel pixel(const Tile& tile, int index) const {
    const int counted = tile.first_pixel + index;
    const int image = call.image_pixels.quotient(counted);
    return {image, call.order.pixel(counted - image * call.image_pixels.divisor())};
  }

  // Of pixel `index` of the tile: its number in the output.
  RESNET_CUDA_BODY int64_t output_pixel(const Tile& tile, int index) const {
    const Pixel at = pixel(tile, index);
    return (tile.image + at.image) * call.image_pixels.divisor() +
           at.place.row * static_cast<int>(call.shape.out_width) + at.place.column;
  }

  // --- producers

  // Of a slice of one tap.
  struct SliceStep : SliceThread<T, kProducers, kPixels> {
    using Thread = SliceThread<T, kProducers, kPixels>;

    const T* channels;  // of the tile's first image
    int first_planned;
    int stage;  // byte of shared memory

    RESNET_CUDA_BODY SliceStep(const Thread& thread, const T* slice, int planned, int at)
        : Thread(thread), channels(slice + thread.chunk * N), first_planned(planned), stage(at) {
    }
    RESNET_CUDA_BODY const T* source(int) const {
      return channels;
    }
    RESNET_CUDA_BODY int planned(int row) const {
      return first_planned + this->row(row);
    }
    RESNET_CUDA_BODY int place(int row) const {
      return stage + this->byte(row);
    }
  };

  // By one thread, when the stage is empty.
  RESNET_CUDA_BODY static void copy_weight(const Weights& ring, const T* part) {
    empty_weights(ring.stage).wait(ring.parity);
    const device::PhaseBarrier full = full_weights(ring.stage);
    full.arrive_and_expect(kWeightBytes);
    device::copy_bulk(kWeights + ring.stage * kWeightBytes, part, kWeightBytes, full);
  }

  // Steps that have one plan, slice by slice, in a slice tap by tap.
  struct Steps {
    int begin;
    int end;
    int tap_count;  // of a slice
    int taps;       // of all sections: parts of the weight from one slice to the next
  };

  // --- consumers

  // Begins a step's products of a warpgroup.
  RESNET_CUDA_BODY void
  multiply(int thread, const Samples& samples, const Weights& weight_ring, bool accumulate, Sums& sums) const {
    constexpr auto kK = device::Major::kK;
    constexpr int kStep = device::kProductStep<kK>;
    const int warpgroup = thread / device::kWarpgroup;
    full_samples(samples.stage).wait(samples.parity);
    device::fence_async_proxy();  // here, not after the samples are written: those who write have loads in flight
    full_weights(weight_ring.stage).wait(weight_ring.parity);
    const int beyond_rows = warpgroup / kRowParts;
    const int column_part = kColumnParts > 1 ? beyond_rows : 0;
    const int depth = kDepthParts > 1 ? beyond_rows * kPartProducts * kStep : 0;
    const device::Descriptor left = device::operand_at<kK>(
        kSamples + samples.stage * kSamplesBytes + warpgroup % kRowParts * device::kProductRows * device::kSwizzledRow +
        depth);
    const device::Descriptor right = device::operand_at<kK>(
        kWeights + weight_ring.stage * kWeightBytes + column_part * kPartColumns * device::kSwizzledRow + depth);
    device::begin_products(sums);
#pragma unroll
    for (int part = 0; part < kPartProducts; ++part) {
      device::multiply<T, kK, kK>(
          sums, left.advanced(part * kStep), right.advanced(part * kStep), accumulate || part > 0);
    }
    device::commit_products();
  }

  // The walk through K: cuda_forward_sections.cuh.
  template <typename Run>
  RESNET_CUDA_BODY void for_each_section(int thread, const Run& run) const;
  RESNET_CUDA_BODY int end_of_plan(int first_slice, int offset_group) const;
  RESNET_CUDA_BODY const T* input_slice(const Tile& here, int slice) const;
  RESNET_CUDA_BODY void
  plan_taps(int thread, const Tile& here, int offset_group, int first_tap, int tap_count, const Plan& plan) const;

  // With warp specialisation: cuda_forward_specialised.cuh.
  RESNET_CUDA_BODY void produce(int thread) const;
  RESNET_CUDA_BODY void produce_steps(
      int thread,
      const Steps& steps,
      const T* source,
      const T* part,
      const Plan& plan,
      Samples& samples,
      Weights& weight_ring) const;
  RESNET_CUDA_BODY void consume(int thread) const;

  // Without: cuda_forward_uniform.cuh.
  RESNET_CUDA_BODY void sample_and_multiply(int thread) const;

  // The end of both: cuda_forward_results.cuh.
  RESNET_CUDA_BODY void finish(int thread, Sums& sums) const;
  RESNET_CUDA_BODY static bool add_depth_parts(int thread, Sums& sums);
  RESNET_CUDA_BODY void write_sums(int thread, const Sums& sums) const;
  RESNET_CUDA_BODY void write(int thread, const Sums& sums) const;
};

}  // namespace resnet_cuda
