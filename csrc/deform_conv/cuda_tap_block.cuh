// How output pixels, taps and channels are divided among the blocks of SampleColumns and PositionGradients, and how
// each block begins: it plans its taps in shared memory.
#pragma once

#include <algorithm>

#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"

namespace resnet_cuda {

constexpr int kBlockPixels = device::kWarp;  // one per lane when a block plans
constexpr int kBlockThreads = 256;
// Threads that share a row of channels: one per pack, at most 8 (128 bytes of 16-byte packs).
constexpr int kMostRowThreads = 8;
constexpr int kMostTapsPerBlock = 9;
constexpr int kMostPlanned = kMostTapsPerBlock * kBlockPixels;

static_assert(
    kMostRowThreads > 0 && (kMostRowThreads & (kMostRowThreads - 1)) == 0 && device::kWarp % kMostRowThreads == 0,
    "row_threads_for doubles the threads, and they sum by shuffles within a warp: a power of two, at most 32");
static_assert(
    kBlockThreads % (kMostRowThreads * kBlockPixels) == 0,
    "a block has kMostRowThreads threads, or a multiple, per pixel, else PixelThread::tap_step is 0: raise "
    "kBlockThreads (then see the launch bound, BlocksPerMultiprocessor in launch.cuh)");
static_assert(kMostTapsPerBlock > 0, "a block takes at least one tap");

// Taps that a block works on at once with one thread per row: the most that PixelThread::tap_step can be.
constexpr int kMostTapStep = kBlockThreads / kBlockPixels;

// The parts of the work on kBlockPixels output pixels, one block each.
struct TapParts {
  int taps;         // of a block, at most kMostTapsPerBlock
  int slice_packs;  // packs of an offset group's channels of a block
};

// The most taps and packs per block that make `wanted_blocks` blocks: first half as many packs, then three taps, then
// one. `pixel_blocks` counts offset groups, too.
inline TapParts
tap_parts(int64_t pixel_blocks, int taps, int packs, int least_packs, int most_packs, int64_t wanted_blocks) {
  TapParts parts{std::min(taps, kMostTapsPerBlock), std::min(packs, most_packs)};
  const auto blocks = [&] { return pixel_blocks * ceil_div(taps, parts.taps) * ceil_div(packs, parts.slice_packs); };
  while (parts.slice_packs / 2 >= least_packs && blocks() < wanted_blocks) {
    parts.slice_packs /= 2;
  }
  while (parts.taps > 1 && blocks() < wanted_blocks) {
    parts.taps = parts.taps > 3 ? 3 : 1;
  }
  return parts;
}

// The taps per block that take the least time where `wave` blocks run at once: each wave takes as long as a block's
// taps and, for the plan and the end of the block, about one more.
inline int taps_in_waves(int64_t pixel_blocks, int taps, int64_t wave) {
  int best = 0;
  int64_t least = 0;
  for (int64_t parts = ceil_div(taps, kMostTapsPerBlock); parts <= taps; ++parts) {
    const auto in_block = static_cast<int>(ceil_div(taps, parts));
    const int64_t time = ceil_div(pixel_blocks * ceil_div(taps, in_block), wave) * (in_block + 1);
    if (best == 0 || time < least) {
      best = in_block;
      least = time;
    }
  }
  return best;
}

struct TapDivision {
  StripOrder order;             // of an image's pixels in the chunk
  FastDivision32 image_pixels;  // of the chunk
  FastDivision32 kernel_width;
  FastDivision32 parts;  // blocks of the same pixels: offset groups x slices x parts of the taps
  FastDivision32 offset_groups;
  FastDivision32 slices;
  FastDivision32 group_channels;  // of a weight group
  TapParts part;
  int row_threads;  // threads that share a row of the columns: a power of two, at most kMostRowThreads
  bool pairs;       // one weight group: a thread takes two packs at once, which lie equally far apart in all rows
};

// An output pixel of a chunk; not `inside` past the chunk's last one.
struct BlockPixel {
  int image;
  int row;
  int column;
  bool inside;
};

// A thread's part of its block: one pixel, of whose channels each of `row_threads` neighbouring threads takes some, and
// every tap_step-th tap from first_tap on.
struct PixelThread {
  int pixel;  // < kBlockPixels
  int first_tap;
  int tap_step;
  int in_row;  // index among the threads of the row

  RESNET_CUDA_HOST_DEVICE PixelThread(int thread, int row_threads)
      : pixel(thread / row_threads % kBlockPixels),
        first_tap(thread / row_threads / kBlockPixels),
        tap_step(kBlockThreads / row_threads / kBlockPixels),
        in_row(thread % row_threads) {
  }
};

// A block's part: `tap_count` taps from `first_tap` on and the packs [first_pack, end_pack) of one offset group, of
// kBlockPixels pixels.
struct TapBlock {
  int first_pixel;  // of the chunk, in strip order
  int offset_group;
  int first_tap;
  int tap_count;
  int first_pack;
  int end_pack;

  RESNET_CUDA_BODY TapBlock(const Chunk& chunk, const TapDivision& division, int group_packs) {
    const int work = static_cast<int>(device::block());
    const int pixel_block = division.parts.quotient(work);
    const int part = division.parts.remainder(work);
    const int in_group = division.offset_groups.quotient(part);
    const int tap_part = division.slices.quotient(in_group);
    const int taps = static_cast<int>(chunk.shape.taps());
    first_pixel = pixel_block * kBlockPixels;
    offset_group = part - in_group * division.offset_groups.divisor();
    first_pack = (in_group - tap_part * division.slices.divisor()) * division.part.slice_packs;
    end_pack =
        first_pack + division.part.slice_packs < group_packs ? first_pack + division.part.slice_packs : group_packs;
    first_tap = tap_part * division.part.taps;
    tap_count = taps - first_tap < division.part.taps ? taps - first_tap : division.part.taps;
  }

  // Pixel `index` < kBlockPixels.
  RESNET_CUDA_BODY BlockPixel pixel(const Chunk& chunk, const TapDivision& division, int index) const {
    const int in_chunk = first_pixel + index;
    const int image = division.image_pixels.quotient(in_chunk);
    const StripPixel place = division.order.pixel(in_chunk - image * division.image_pixels.divisor());
    return {image, place.row, place.column, image < chunk.images};
  }

  // Calls plan(place in the plan, sample and mask) for every tap of the block and every pixel inside.
  template <typename Real, typename Plan>
  RESNET_CUDA_BODY void
  for_each_tap(const Chunk& chunk, const TapDivision& division, const Positions& positions, const Plan& plan) const {
    const int lane = device::thread() % device::kWarp;
    const BlockPixel at = pixel(chunk, division, lane);
    if (!at.inside) {
      return;
    }
    for (int tap = device::thread() / device::kWarp; tap < tap_count; tap += kBlockThreads / device::kWarp) {
      plan(
          tap * kBlockPixels + lane,
          positions.sample<Real>(
              chunk.shape,
              division.kernel_width,
              {chunk.first_image + at.image, chunk.first_row + at.row, at.column, offset_group, first_tap + tap}));
    }
  }
};

// The plan of one tap: its corners as indices into the image in packs, without the channel, -1 for a corner that counts
// as 0, and their weights, the mask included.
template <typename Real>
struct alignas(16) PlannedTap {
  int corner[4];
  Real weight[4];
};

// Plans a tap. `keep_border` keeps the corners of a tap at the image's border: its sample is 0, its derivative is not.
template <typename Real>
RESNET_CUDA_BODY PlannedTap<Real> planned_tap(const MaskedSample<Real>& tap, int pixel_packs, bool keep_border) {
  const TapSample<Real>& sample = tap.sample;
  const bool inside = sample.kind == TapKind::kInside;
  PlannedTap<Real> planned;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // A negative corner stays negative.
    planned.corner[i] = inside || keep_border ? sample.corner[i] * pixel_packs : -1;
    planned.weight[i] = inside && sample.corner[i] >= 0 ? sample.corner_weight(i) * tap.mask : Real(0);
  }
  if (!inside) {
    // All corners are -1, so loads give 0; weight NaN (position NaN, mask NaN or infinite) makes the sample NaN.
    planned.weight[0] = sample.kind == TapKind::kNan ? not_a_number<Real>() : Real(0) * tap.mask;
  }
  return planned;
}

}  // namespace resnet_cuda
