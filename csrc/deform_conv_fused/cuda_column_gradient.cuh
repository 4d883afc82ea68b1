// The columns' gradient by a matrix product of the output's gradient with the weight, whose epilogue also takes the
// gradients of offsets and masks from it, in float32 and before it is rounded. By the warpgroup layer.
#pragma once

#include "common/pack.cuh"
#include "common/warpgroup.cuh"
#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"
#include "deform_conv/cuda_tap_block.cuh"
#include "deform_conv/cuda_tap_slopes.cuh"
#include "deform_conv_fused/cuda_packed_output_gradient.cuh"
#include "deform_conv_fused/cuda_transposed_weight.cuh"

namespace resnet_cuda {

// How a chunk's work is divided: a block has 128 pixels in strip order and some of the taps.
struct ColumnGradientCall {
  Chunk chunk;
  Positions positions;
  PositionGradientPlanes grads;
  ChannelTiles tiles;
  StripOrder order;  // of an image's pixels in the chunk
  FastDivision32 image_pixels;
  FastDivision32 kernel_width;
  FastDivision32 tap_parts;  // blocks of the same pixels
  int block_taps;
  int slices;  // of a group's output channels
};

// Two consumer warpgroups multiply 64 pixels each with the weight, one tile of kColumns columns after another. The
// output's gradient, at most kMostSlices * 64 output channels, stays in shared memory. In the third warpgroup, which
// gives registers to the consumers, one thread starts the copies. If the stages hold the weight of a whole tile, the
// consumers alternate: one multiplies while the other is in its epilogue.
template <typename T, int kColumns, int kMostSlices>
struct FusedColumnGradient {
  static constexpr int N = kPackBytes / static_cast<int>(sizeof(T));
  static constexpr int kPixels = 2 * device::kProductRows;
  static constexpr int kWarpgroups = 3;
  static constexpr int kConsumerGroups = 2;
  static constexpr int kConsumers = kConsumerGroups * device::kWarpgroup;
  static constexpr int kConsumerWarps = kConsumers / device::kWarp;
  static constexpr int kThreads = kConsumers + device::kWarpgroup;
  static_assert(
      kPixels == PackedOutputGradient::kPixelMultiple && device::kProductRows == PackedOutputGradient::kPixels);

  // ptxas goes by setmaxnreg here; 288 threads without it would get 168 registers, as few as 384 do.
  static constexpr int kConsumerRegisters = 240;
  static constexpr int kCopyRegisters = 24;

  static constexpr int kSliceBytes = kConsumerGroups * PackedOutputGradient::kBytes;
  static constexpr int kWeightBytes = kColumns * device::kSwizzledRow;
  static constexpr int kWeightStages = kMostSlices <= 4 ? 4 : 3;
  static constexpr bool kTurns = kMostSlices <= kWeightStages;

  static constexpr int kGradients = 0;
  static constexpr int kWeights = kGradients + kMostSlices * kSliceBytes;
  static constexpr int kBarriers = kWeights + kWeightStages * kWeightBytes;  // of 8 bytes each
  static constexpr int kBarrierCount = 2 * kWeightStages + kMostSlices + 1 + kConsumerGroups;
  // Two arrays with an entry per pixel, for which there are no registers: the row of the columns, -1 past the chunk's
  // last pixel; and what the end of a tap needs of its plan.
  static constexpr int kRows = kBarriers + (kBarrierCount + 1) / 2 * 16;
  static constexpr int kSlopes = kRows + kPixels * static_cast<int>(sizeof(int));
  static constexpr int kSharedBytes = kSlopes + kPixels * static_cast<int>(sizeof(TapSlope<float>));

  ColumnGradientCall call;
  const T* grad;     // the output's gradient of the chunk, see PackedOutputGradient
  const T* weights;  // see PackTransposedWeight
  const T* input;    // [images, H, W, C]
  T* columns;        // [groups][pixels][taps][C/groups]
  bool stores;       // else nothing is written there

  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    if (thread == 0) {
      for (int stage = 0; stage < kWeightStages; ++stage) {
        full_weights(stage).init(1);
        empty_weights(stage).init(kConsumerWarps);
      }
      for (int slice = 0; slice < kMostSlices; ++slice) {
        full_gradients(slice).init(1);
      }
      empty_gradients().init(kConsumerWarps);
      for (int warpgroup = 0; warpgroup < kConsumerGroups; ++warpgroup) {
        turn(warpgroup).init(device::kWarpgroup / device::kWarp);
      }
      device::publish_barriers();
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (thread < kConsumers) {
      device::raise_registers<kConsumerRegisters>();
      consume(thread);
    } else {
      device::lower_registers<kCopyRegisters>();
      if (thread == kConsumers) {
        copy();
      }
    }
  }

 private:
  using Weights = device::Ring<kWeightStages>;
  using Dots = CornerDots<float>;

  RESNET_CUDA_BODY static device::PhaseBarrier barrier(int number) {
    return device::PhaseBarrier(kBarriers + number * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier full_weights(int stage) {
    return barrier(stage);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty_weights(int stage) {
    return barrier(kWeightStages + stage);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier full_gradients(int slice) {
    return barrier(2 * kWeightStages + slice);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty_gradients() {
    return barrier(2 * kWeightStages + kMostSlices);
  }
  // Ends a phase when the warpgroup may multiply its next tile.
  RESNET_CUDA_BODY static device::PhaseBarrier turn(int warpgroup) {
    return barrier(2 * kWeightStages + kMostSlices + 1 + warpgroup);
  }

  RESNET_CUDA_BODY static device::Shared<int> rows() {
    return device::Shared<int>(kRows, kPixels);
  }
  RESNET_CUDA_BODY static device::Shared<TapSlope<float>> slopes() {
    return device::Shared<TapSlope<float>>(kSlopes, kPixels);
  }

  // What the block works on.
  struct Part {
    int64_t pixel_tile;
    int first_tap;
    int end_tap;
  };
  RESNET_CUDA_BODY Part part() const {
    const auto block = static_cast<int>(device::block());
    const int pixel_tile = call.tap_parts.quotient(block);
    const int first_tap = (block - pixel_tile * call.tap_parts.divisor()) * call.block_taps;
    const auto taps = static_cast<int>(call.chunk.shape.taps());
    return {pixel_tile, first_tap, first_tap + call.block_taps < taps ? first_tap + call.block_taps : taps};
  }

  RESNET_CUDA_BODY bool has_one_group() const {
    return call.tiles.group_tiles.divisor() == call.tiles.tiles;
  }
  // Whether the output's gradient in shared memory is of another weight group from this tile on; with one group, once.
  RESNET_CUDA_BODY bool begins_gradients(const Part& here, int tap, int tile) const {
    return call.tiles.group_tiles.remainder(tile) == 0 && (!has_one_group() || tap == here.first_tap);
  }
  // How often it was another one before.
  RESNET_CUDA_BODY int gradients_phase(const Part& here, int tap, int tile) const {
    return (tap - here.first_tap) * static_cast<int>(call.chunk.shape.groups) + call.tiles.group_tiles.quotient(tile);
  }
  RESNET_CUDA_BODY bool ends_gradients(int tile) const {
    return call.tiles.group_tiles.remainder(tile + 1) == 0 && !has_one_group();
  }

  // --- copies, by one thread

  RESNET_CUDA_BODY void copy() const {
    const Part here = part();
    const int tiles = call.tiles.tiles;
    const int slices = call.slices;
    const T* weight =
        weights + static_cast<int64_t>(here.first_tap) * tiles * slices * (kWeightBytes / static_cast<int>(sizeof(T)));
    const int channel_parts = call.tiles.group_tiles.quotient(tiles) * slices;
    constexpr int kPartElements = PackedOutputGradient::kBytes / static_cast<int>(sizeof(T));
    const T* pixels = grad + here.pixel_tile * kConsumerGroups * channel_parts * kPartElements;
    Weights ring(1);
    for (int tap = here.first_tap; tap < here.end_tap; ++tap) {
      for (int tile = 0; tile < tiles; ++tile) {
        const bool begins = begins_gradients(here, tap, tile);
        if (begins) {
          empty_gradients().wait((gradients_phase(here, tap, tile) + 1) & 1);
        }
        const T* of_group = pixels + call.tiles.group_tiles.quotient(tile) * slices * kPartElements;
        for (int slice = 0; slice < slices; ++slice) {
          if (begins) {
            const device::PhaseBarrier full = full_gradients(slice);
            full.arrive_and_expect(kSliceBytes);
            for (int warpgroup = 0; warpgroup < kConsumerGroups; ++warpgroup) {
              device::copy_bulk(
                  kGradients + slice * kSliceBytes + warpgroup * PackedOutputGradient::kBytes,
                  of_group + (warpgroup * channel_parts + slice) * kPartElements,
                  PackedOutputGradient::kBytes,
                  full);
            }
          }
          empty_weights(ring.stage).wait(ring.parity);
          const device::PhaseBarrier full = full_weights(ring.stage);
          full.arrive_and_expect(kWeightBytes);
          device::copy_bulk(kWeights + ring.stage * kWeightBytes, weight, kWeightBytes, full);
          weight += kWeightBytes / static_cast<int>(sizeof(T));
          ring.advance();
        }
      }
    }
  }

  // --- products and their epilogues

  // A thread has sums of two rows of its warpgroup's 64, eight apart; the four threads of a quad share them.
  static constexpr int kThreadRows = 2;

  // The chunk's pixel number `index` in strip order.
  RESNET_CUDA_BODY BlockPixel pixel(int index) const {
    const int image = call.image_pixels.quotient(index);
    const StripPixel place = call.order.pixel(index - image * call.image_pixels.divisor());
    return {image, place.row, place.column, image < call.chunk.images};
  }

  RESNET_CUDA_BODY void consume(int thread) const {
    const int warpgroup = thread / device::kWarpgroup;
    const int in_quad = thread % 4;
    const Part here = part();
    const int first_pixel = static_cast<int>(here.pixel_tile) * kPixels + warpgroup * device::kProductRows;
    // The first row's pixel in the even threads of a quad, the second row's in the others.
    const int own = first_pixel + device::result_row(thread, in_quad % kThreadRows * 2);
    if (in_quad < kThreadRows) {
      const BlockPixel at = pixel(own);
      rows().set(own % kPixels, at.inside ? call.chunk.row_of(at.image, at.row, at.column) : -1);
    }
    RESNET_CUDA_SYNC_WARP();
    device::Sums<kColumns> sums;
    Weights ring(0);
    int corner[kThreadRows][4];
    Dots dots[kThreadRows];
#pragma unroll 1
    for (int tap = here.first_tap; tap < here.end_tap; ++tap) {
#pragma unroll 1
      for (int tile = 0; tile < call.tiles.tiles; ++tile) {
        if constexpr (kTurns) {
          // The first warpgroup does not wait for its first tile.
          turn(warpgroup).wait(((tap - here.first_tap) * call.tiles.tiles + tile + 1 - warpgroup) & 1);
        }
        const int parity = begins_gradients(here, tap, tile) ? gradients_phase(here, tap, tile) & 1 : -1;
        const int last = multiply(warpgroup, thread, parity, ring, sums);
        if (kTurns && thread % device::kWarp == 0) {
          turn(1 - warpgroup).arrive();
        }
        // While the last products run.
        const int offset_group = call.tiles.offset_group_tiles.quotient(tile);
        if (tile == offset_group * call.tiles.offset_group_tiles.divisor()) {
          plan(own, offset_group, tap, corner);
#pragma unroll
          for (int i = 0; i < kThreadRows; ++i) {
            dots[i] = Dots{};
          }
        }
        device::finish_products(sums);
        if (thread % device::kWarp == 0) {
          empty_weights(last).arrive();
          if (ends_gradients(tile)) {
            empty_gradients().arrive();
          }
        }
        use(thread, tap, tile, corner, sums, dots);
        if (tile + 1 == (offset_group + 1) * call.tiles.offset_group_tiles.divisor()) {
          write(own, offset_group, tap, in_quad, dots);
        }
      }
    }
  }

  // Starts the products of a tile and waits for all but those of the last slice, in the stage that it gives. Waits for
  // the output's gradient where `parity` is not negative.
  RESNET_CUDA_BODY int multiply(int warpgroup, int thread, int parity, Weights& ring, device::Sums<kColumns>& sums)
      const {
    constexpr auto kK = device::Major::kK;
    int last = 0;
#pragma unroll 1
    for (int slice = 0; slice < call.slices; ++slice) {
      if (parity >= 0) {
        full_gradients(slice).wait(parity);
      }
      full_weights(ring.stage).wait(ring.parity);
      const device::Descriptor left =
          device::operand_at<kK>(kGradients + slice * kSliceBytes + warpgroup * PackedOutputGradient::kBytes);
      const device::Descriptor right = device::operand_at<kK>(kWeights + ring.stage * kWeightBytes);
      device::begin_products(sums);
#pragma unroll
      for (int part = 0; part < device::kRowElements / device::kProductDepth; ++part) {
        constexpr int kStep = device::kProductStep<kK>;
        device::multiply<T, kK, kK>(
            sums, left.advanced(part * kStep), right.advanced(part * kStep), slice > 0 || part > 0);
      }
      device::commit_products();
      device::wait_products<1>();
      if (slice > 0 && thread % device::kWarp == 0) {
        empty_weights(last).arrive();
      }
      last = ring.stage;
      ring.advance();
    }
    return last;
  }

  // The same number. The compiler does not know that, and so keeps nothing that follows from it in registers from tap
  // to tap: there are none left.
  RESNET_CUDA_BODY static int hidden(int number) {
    return RESNET_CUDA_SHUFFLE(number, device::thread() % device::kWarp);
  }

  // Each thread of a quad plans one of its two rows; corners go to all of them.
  RESNET_CUDA_BODY void plan(int own_pixel, int offset_group, int tap, int (&corner)[kThreadRows][4]) const {
    const Chunk& chunk = call.chunk;
    const BlockPixel own = pixel(hidden(own_pixel));
    int planned[4] = {-1, -1, -1, -1};
    if (own.inside) {
      const int pixel_packs = static_cast<int>(chunk.shape.channels) / N;
      const MaskedSample<float> sample = call.positions.template sample<float>(
          chunk.shape,
          call.kernel_width,
          {chunk.first_image + own.image, chunk.first_row + own.row, own.column, offset_group, tap});
      if (device::thread() % 4 < kThreadRows) {
        slopes().set(own_pixel % kPixels, tap_slope(sample));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = sample.sample.corner[i];
        planned[i] = at < 0 ? -1 : (own.image * chunk.input_pixels() + at) * pixel_packs;
      }
    }
    const int first_lane = device::thread() % device::kWarp / 4 * 4;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        corner[i][j] = RESNET_CUDA_SHUFFLE(planned[j], first_lane + i);
      }
    }
  }

  // The epilogue: cuda_column_gradient_epilogue.cuh.
  RESNET_CUDA_BODY void use(
      int thread,
      int tap,
      int tile,
      const int (&corner)[kThreadRows][4],
      const device::Sums<kColumns>& sums,
      Dots (&dots)[kThreadRows]) const;
  RESNET_CUDA_BODY void write(int own_pixel, int offset_group, int tap, int in_quad, const Dots (&dots)[kThreadRows])
      const;
};

}  // namespace resnet_cuda
