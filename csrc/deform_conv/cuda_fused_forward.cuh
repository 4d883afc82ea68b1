// The forward of the deformable convolution without columns in memory: a block samples them for 128 or 64 output pixels
// into shared memory and multiplies them there by wgmma: an implicit matrix product (implicit GEMM).
#pragma once

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_epilogue.cuh"
#include "deform_conv/cuda_fused_producer.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/cuda_tap_block.cuh"

namespace resnet_cuda {

// How the weight [O, C/groups, kh, kw] becomes a sequence of parts, each of kColumns output channels and a slice of
// input channels of one tap, 64 or in float32 32, K-major and swizzled as they lie in shared memory: [groups][column
// tiles][slices][taps]. Output channels past a group's last one are zeros.
struct WeightParts {
  int columns;       // kColumns
  int column_tiles;  // of a group
  int slices;        // of a group's input channels
  int taps;

  RESNET_CUDA_HOST_DEVICE int part_bytes() const {
    return columns * device::kSwizzledRow;
  }
  RESNET_CUDA_HOST_DEVICE int64_t tile_parts() const {
    return static_cast<int64_t>(slices) * taps;
  }
};

// Packs the weight. Index: 16 bytes of the parts.
template <typename T>
struct PackWeightParts {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowPacks = device::kSwizzledRow / kPackBytes;

  const T* weight;  // [O, C/groups, kh, kw], any strides
  T* parts;
  WeightParts layout;
  int64_t out_stride, channel_stride, tap_stride;  // of `weight`
  int group_out_channels;
  FastDivision taps, slices, column_tiles, part_packs;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const int64_t part = part_packs.quotient(index);
    const auto in_part = static_cast<int>(part_packs.remainder(index));
    const int64_t slice_part = taps.quotient(part);
    const int64_t tap = taps.remainder(part);
    const int64_t tile = slices.quotient(slice_part);
    const int64_t slice = slices.remainder(slice_part);
    const int64_t group = column_tiles.quotient(tile);
    const auto column =
        static_cast<int>(column_tiles.remainder(tile)) * layout.columns + in_part / kRowPacks;  // in the group
    const int64_t channel = slice * device::kRowElementsOf<T> + in_part % kRowPacks * N;
    const T* from =
        weight + (group * group_out_channels + column) * out_stride + channel * channel_stride + tap * tap_stride;
    Pack<T, N> pack{};
    if (column < group_out_channels) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        pack.element[i] = from[i * channel_stride];
      }
      device::round_operands(pack.element);
    }
    const int place = device::swizzled(in_part * kPackBytes) / static_cast<int>(sizeof(T));
    store_pack(parts + part * (layout.part_bytes() / static_cast<int>(sizeof(T))) + place, pack);
  }
};

// A call of the fused forward. Pixels are counted in strip order, image after image.
struct FusedCall {
  DeformConvShape shape;
  Positions positions;
  WeightParts weight;
  StripOrder order;
  FastDivision32 image_pixels;  // of the output
  FastDivision32 kernel_width;
  FastDivision32 tiles;         // column tiles of all groups: blocks of the same pixels
  FastDivision32 column_tiles;  // of a group
  FastDivision32 splits;        // parts of K: blocks of the same pixels and columns
  int64_t first_image;          // of the batch: that of the positions for the input's first one
  int64_t pixels;               // of all images
  int slice_packs;              // 16-byte packs of an input pixel's channels of an offset group, in slices
};

// A block: kTilePixels output pixels, kColumns output channels of one group and a part of K. A warpgroup multiplies 64
// pixels; others sample, and start the copies of the weight. K is walked by sections of at most nine taps of one offset
// group, whose plan is in shared memory; in a section by slices of 64 channels, in a slice by taps. T float: in TF32,
// by slices of 32 channels.
template <typename T, int kTilePixels, int kColumns>
struct FusedForward {
  static_assert(kTilePixels == 128 || (kTilePixels == 64 && kColumns == 128));
  static_assert(kColumns == 128 || kColumns == 256);
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowPacks = device::kSwizzledRow / kPackBytes;  // of a slice
  static constexpr int kPixels = kTilePixels;
  // With 256 columns the sums leave no registers for more than 384 threads. Of 64 pixels two blocks of 256 threads, so
  // of 128 registers each, run at once.
  static constexpr int kBlocksPerMultiprocessor = kPixels == 64 ? 2 : 1;
  static constexpr int kProducers = kPixels == 64 || kColumns == 256 ? 128 : 256;
  static constexpr int kConsumers = kPixels / device::kProductRows * device::kWarpgroup;
  static constexpr int kThreads = kConsumers + kProducers;
  static constexpr int kWarpgroups = kThreads / device::kWarpgroup;
  static constexpr bool kMovesRegisters = kPixels == 128;
  static constexpr int kConsumerRegisters = kColumns == 256 ? 176 : 152;
  static constexpr int kProducerRegisters = kColumns == 256 ? 152 : 96;

  static constexpr int kSamplesBytes = kPixels * device::kSwizzledRow;
  static constexpr int kWeightBytes = kColumns * device::kSwizzledRow;
  static constexpr int kSampleStages = 3;
  static constexpr int kWeightStages = kColumns == 256 ? 2 : 3;
  static constexpr int kMostPlannedTaps = kMostTapsPerBlock;

  static constexpr int kSamples = 0;
  static constexpr int kWeights = kSamples + kSampleStages * kSamplesBytes;
  static constexpr int kPlan = kWeights + kWeightStages * kWeightBytes;
  static constexpr int kBarriers =
      kPlan + kMostPlannedTaps * kPixels * static_cast<int>(sizeof(PlannedTap<float>));  // of 8 bytes each
  static constexpr int kSharedBytes = kBarriers + 2 * (kSampleStages + kWeightStages) * 8 + 8;
  // A multiprocessor has 228 KiB, of which each block costs one more.
  static_assert(kBlocksPerMultiprocessor * (kSharedBytes + 1024) <= 228 << 10);

  FusedCall call;
  const T* input;     // [images, H, W, C]
  const T* weights;   // parts, see WeightParts
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
    if (thread >= kConsumers) {
      if constexpr (kMovesRegisters) {
        device::lower_registers<kProducerRegisters>();
      }
      produce(thread - kConsumers);
    } else {
      if constexpr (kMovesRegisters) {
        device::raise_registers<kConsumerRegisters>();
      }
      consume(thread);
    }
  }

 private:
  using Samples = device::Ring<kSampleStages>;
  using Weights = device::Ring<kWeightStages>;

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
    const int whole = call.splits.quotient(block);
    const int split = block - whole * call.splits.divisor();
    const int pixel_tile = call.tiles.quotient(whole);
    const int number = whole - pixel_tile * call.tiles.divisor();
    const int64_t first = static_cast<int64_t>(pixel_tile) * kPixels;
    const int64_t image = first / call.image_pixels.divisor();
    const int group = call.column_tiles.quotient(number);
    const auto steps = static_cast<int>(call.weight.tile_parts());
    return {
        image,
        static_cast<int>(first - image * call.image_pixels.divisor()),
        static_cast<int>(smaller(kPixels, call.pixels - first)),
        group,
        (number - group * call.column_tiles.divisor()) * kColumns,
        number,
        split,
        call.splits.quotient(split * steps),
        call.splits.quotient((split + 1) * steps)};
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

  RESNET_CUDA_BODY void produce(int thread) const {
    const Tile here = tile();
    const int pixel_packs = static_cast<int>(call.shape.channels) / N;
    const auto taps = static_cast<int>(call.shape.taps());
    const int group_slices = call.weight.slices;
    const int group_pack = here.group * group_slices * kRowPacks;
    const T* image = input + here.image * call.shape.height * call.shape.width * call.shape.channels;
    const T* part = weights + here.number * call.weight.tile_parts() * (kWeightBytes / static_cast<int>(sizeof(T)));
    const device::Shared<PlannedTap<float>> plan(kPlan, kMostPlannedTaps * kPixels);
    Samples samples(1);
    Weights weight_ring(1);
    int step = 0;  // of the slice's first tap
    for (int first_tap = 0; first_tap < taps; first_tap += kMostPlannedTaps) {
      const int tap_count = taps - first_tap < kMostPlannedTaps ? taps - first_tap : kMostPlannedTaps;
      int planned_group = -1;
      for (int slice = 0; slice < group_slices; ++slice, step += tap_count) {
        const int begin_tap = here.first_step > step ? here.first_step - step : 0;
        const int end_tap = here.end_step - step < tap_count ? here.end_step - step : tap_count;
        if (begin_tap >= end_tap) {
          continue;  // not in the block's part of K
        }
        const int slice_pack = group_pack + slice * kRowPacks;
        const int offset_group = slice_pack / call.slice_packs;
        if (offset_group != planned_group) {
          device::sync_threads(1, kProducers);  // all are done with the plan before
          plan_taps(thread, here, offset_group, first_tap, tap_count, pixel_packs, plan);
          device::sync_threads(1, kProducers);
          planned_group = offset_group;
        }
        for (int tap = begin_tap; tap < end_tap; ++tap) {
          if (thread == 0) {
            empty_weights(weight_ring.stage).wait(weight_ring.parity);
            const device::PhaseBarrier full = full_weights(weight_ring.stage);
            full.arrive_and_expect(kWeightBytes);
            const int64_t number = static_cast<int64_t>(slice) * taps + first_tap + tap;
            const T* source = part + number * (kWeightBytes / static_cast<int>(sizeof(T)));
            device::copy_bulk(kWeights + weight_ring.stage * kWeightBytes, source, kWeightBytes, full);
            weight_ring.advance();
          }
          empty_samples(samples.stage).wait(samples.parity);
          constexpr int kInFlight = kColumns == 256 ? 4 : 2;
          sample_slice<T, kProducers, kPixels, kInFlight>(
              thread, image + slice_pack * N, plan, tap * kPixels, kSamples + samples.stage * kSamplesBytes);
          device::fence_async_proxy();
          RESNET_CUDA_SYNC_WARP();
          if (thread % device::kWarp == 0) {
            full_samples(samples.stage).arrive();
          }
          samples.advance();
        }
      }
    }
  }

  // The plan of all pixels; those past the last one read nothing.
  RESNET_CUDA_BODY void plan_taps(
      int thread,
      const Tile& here,
      int offset_group,
      int first_tap,
      int tap_count,
      int pixel_packs,
      const device::Shared<PlannedTap<float>>& plan) const {
    const int index = thread % kPixels;
    const Pixel mine = pixel(here, index);
    const int image_packs = static_cast<int>(call.shape.height * call.shape.width) * pixel_packs;
#pragma unroll 1
    for (int tap = thread / kPixels; tap < tap_count; tap += kProducers / kPixels) {
      PlannedTap<float> planned{{-1, -1, -1, -1}, {0, 0, 0, 0}};
      if (index < here.pixels) {
        planned = planned_tap(
            call.positions.template sample<float>(
                call.shape,
                call.kernel_width,
                {call.first_image + here.image + mine.image,
                 mine.place.row,
                 mine.place.column,
                 offset_group,
                 first_tap + tap}),
            pixel_packs,
            false);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          planned.corner[i] = planned.corner[i] < 0 ? -1 : planned.corner[i] + mine.image * image_packs;
        }
      }
      plan.set(tap * kPixels + index, planned);
    }
  }

  // --- consumers

  RESNET_CUDA_BODY void consume(int thread) const {
    constexpr auto kDepth = device::Major::kDepth;
    constexpr int kStep = device::kProductStep<kDepth>;
    const int warpgroup = thread / device::kWarpgroup;
    const Tile here = tile();
    const int steps = here.end_step - here.first_step;
    device::Sums<kColumns> sums;
    Samples samples(0);
    Weights weight_ring(0);
    int last_samples = 0;
    int last_weights = 0;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      full_samples(samples.stage).wait(samples.parity);
      full_weights(weight_ring.stage).wait(weight_ring.parity);
      const device::Descriptor left = device::operand_at<kDepth>(
          kSamples + samples.stage * kSamplesBytes + warpgroup * device::kProductRows * device::kSwizzledRow);
      const device::Descriptor right = device::operand_at<kDepth>(kWeights + weight_ring.stage * kWeightBytes);
      device::begin_products(sums);
#pragma unroll
      for (int part = 0; part < device::kRowProducts; ++part) {
        device::multiply<T, kDepth, kDepth>(
            sums, left.advanced(part * kStep), right.advanced(part * kStep), step > 0 || part > 0);
      }
      device::commit_products();
      device::wait_products<1>();
      if (step > 0 && thread % device::kWarp == 0) {
        empty_samples(last_samples).arrive();
        empty_weights(last_weights).arrive();
      }
      last_samples = samples.stage;
      last_weights = weight_ring.stage;
      samples.advance();
      weight_ring.advance();
    }
    device::finish_products(sums);
    if constexpr (kPixels == 64) {
      if (split_sums != nullptr) {
        write_sums(thread, sums);
        return;
      }
    }
    device::sync_threads(2, kConsumers);  // both are done with the samples, whose memory the results now pass through
    write(thread, sums);
  }

  // A part's sums as they are. Four threads write 8 neighbouring columns of a pixel: a sector of 32 bytes.
  RESNET_CUDA_BODY void write_sums(int thread, const device::Sums<kColumns>& sums) const {
    const Tile here = tile();
    const auto group_columns = static_cast<int>(call.shape.group_out_channels());
    const int64_t first = here.split * call.pixels;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = device::result_row(thread, 2 * half);
      if (row < here.pixels) {
        float* to = split_sums + (first + output_pixel(here, row)) * call.shape.out_channels +
                    here.group * group_columns + here.first_column;
#pragma unroll
        for (int i = 2 * half; i < kColumns / 2; i += 4) {
          const int column = device::result_column(thread, i);
          if (here.first_column + column < group_columns) {
            store_pack(to + column, Pack<float, 2>{{sums.get(i), sums.get(i + 1)}});
          }
        }
      }
    }
  }

  // 256 bytes of a row at a time: rounded into shared memory, from there in packs of 16 bytes to the output. Tiles of
  // 64 pixels 128 bytes: the compiler loads the bias of all of it first, for which their registers do not suffice.
  RESNET_CUDA_BODY void write(int thread, const device::Sums<kColumns>& sums) const {
    constexpr int kAtOnce = (kPixels == 64 ? 128 : 256) / static_cast<int>(sizeof(T));
    constexpr int kAtOncePacks = kAtOnce / N;
    using Pair = PackWord<T, 2>;
    constexpr int kRows = device::kProductRows;
    static_assert(kPixels * kAtOnce * static_cast<int>(sizeof(T)) <= kSampleStages * kSamplesBytes);
    const int warpgroup = thread / device::kWarpgroup;
    const int in_group = thread % device::kWarpgroup;
    const Tile here = tile();
    const auto group_columns = static_cast<int>(call.shape.group_out_channels());
    const int first_channel = here.group * group_columns + here.first_column;
    const int place = kSamples + warpgroup * kRows * kAtOnce * static_cast<int>(sizeof(T));
    const device::Shared<Pair> pairs(place, kRows * kAtOnce / 2);
    const device::Shared<Pack<T, N>> packs(place, kRows * kAtOncePacks);
#pragma unroll
    for (int first = 0; first < kColumns; first += kAtOnce) {
#pragma unroll
      for (int i = first / 2; i < (first + kAtOnce) / 2; i += 2) {
        const int row = device::result_row(in_group, i);
        const int column = device::result_column(in_group, i);
        float value[2] = {sums.get(i), sums.get(i + 1)};
        const bool biased = bias != nullptr && here.first_column + column < group_columns;
        add_bias(biased ? bias + first_channel + column : nullptr, relu, value);
        const Pack<T, 2> pack = pack_of<T, 2>(value);
        Pair bits;
        memcpy(&bits, &pack, sizeof(bits));
        // The packs of a row are XOR-swizzled by its number against bank conflicts between rows.
        const int in_row = column - first;
        pairs.set((row * kAtOncePacks + (in_row / N ^ row % 8)) * (N / 2) + in_row % N / 2, bits);
      }
      device::sync_threads(3 + warpgroup, device::kWarpgroup);
#pragma unroll 1
      for (int index = in_group; index < kRows * kAtOncePacks; index += device::kWarpgroup) {
        const int row = index / kAtOncePacks;
        const int column = first + index % kAtOncePacks * N;
        const int in_tile = warpgroup * kRows + row;
        if (in_tile < here.pixels && here.first_column + column < group_columns) {
          store_pack(
              output + output_pixel(here, in_tile) * call.shape.out_channels + first_channel + column,
              packs.get(row * kAtOncePacks + (index % kAtOncePacks ^ row % 8)));
        }
      }
      device::sync_threads(3 + warpgroup, device::kWarpgroup);
    }
  }
};

}  // namespace resnet_cuda
