// Builds the input lists: a block looks for the samples that read its 8 x 8 pixels.
#pragma once

#include "deform_conv/cuda_input_lists.cuh"
#include "deform_conv/cuda_input_tiles.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_tap_corners.cuh"

namespace resnet_cuda {

// Hits of a tile that a block keeps in shared memory at once, for float (double: half of it). Mostly a tile has about
// 81 * taps / (stride_h * stride_w) of them.
#if !defined(RESNET_CUDA_TILE_HITS)
#define RESNET_CUDA_TILE_HITS 1024
#endif

// An image of more boxes is searched by outer boxes first, each around 32 boxes: else the time would grow with the
// square of the image's size. Fewer boxes are searched faster by themselves.
#if !defined(RESNET_CUDA_DIRECT_BOXES)
#define RESNET_CUDA_DIRECT_BOXES 2048
#endif

// Outer boxes of an image of so many boxes; 0 where they are not used.
inline int outer_boxes_of(int image_boxes) {
  return image_boxes > RESNET_CUDA_DIRECT_BOXES ? static_cast<int>(ceil_div(image_boxes, device::kWarp)) : 0;
}

// The sum of `value` over this lane and all lower lanes of the warp, all of which must call it.
RESNET_CUDA_BODY int warp_inclusive_sum(int value) {
  const int lane = device::thread() % device::kWarp;
  int inclusive_sum = value;
#pragma unroll
  for (int delta = 1; delta < device::kWarp; delta *= 2) {
    const int shifted = RESNET_CUDA_SHUFFLE_UP(inclusive_sum, delta);
    inclusive_sum += lane >= delta ? shifted : 0;
  }
  return inclusive_sum;
}

// Thread block: one tile of one image of one offset group. A sample is one tap at one output pixel. A hit is a sample
// whose 2 x 2 patch overlaps the tile.
//
// - keep: select the outer boxes, then the groups of 32 samples, whose bounding boxes overlap the tile;
// - collect: compact the hits among these samples, in order, by ballots and prefix sums, without atomics;
// - weigh: compute the hits' weights from offset and mask, and count the entries of each list;
// - place: reserve memory for the tile's lists by a global atomic, and note each long list by another one. The atomics
//   decide only where lists are stored and in which order long lists are noted, not what a list contains;
// - append: each warp writes the lists of one row of the tile, hits in order.
//
// If the hits do not fit into shared memory, the block searches twice in parts that fit: to count, then to append.
template <typename Real>
struct InvertTaps {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / device::kWarp;
  // Five of float, but where the compiler needs more than the 48 registers that they leave.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr int kBlocksPerMultiprocessor = 4;
#else
  static constexpr int kBlocksPerMultiprocessor = sizeof(Real) == 8 ? 4 : 5;
#endif
  static constexpr int kHits = RESNET_CUDA_TILE_HITS * static_cast<int>(sizeof(float)) / static_cast<int>(sizeof(Real));
  static constexpr int kPartBoxes = kHits / device::kWarp;
  static constexpr int kBoxLoads = 4;  // in flight, per thread
  static constexpr int kRoundBoxes = kBoxLoads * kThreads;
  static constexpr int kMostKept = 2 * kRoundBoxes;  // boxes of several rounds, mostly all that meet the tile
  // A warp keeps one ballot per lane.
  static constexpr int kMostCollected = kWarps * device::kWarp;
  static constexpr int kQueued = 2 * device::kWarp;
  static_assert(kHits > 0 && kHits % device::kWarp == 0, "the hits of a whole number of boxes fit the buffer");
  static_assert(kWarps == kInputTileRows, "each warp appends one row of the tile");
  static_assert(kBoxLoads * kWarps == device::kWarp, "a warp sums the counts of a round's ballots, one per lane");
  static_assert(kInputTilePixels == 2 * device::kWarp, "a warp places the tile's lists, two per lane");

  struct alignas(4 * sizeof(Real)) Weights {
    Real corner[4];
  };

  // Shared memory: offsets in bytes.
  static constexpr int kWeightsAt = 0;
  static constexpr int kRowsAt = kWeightsAt + kHits * static_cast<int>(sizeof(Weights));
  static constexpr int kCellsAt = kRowsAt + kHits * 4;
  static constexpr int kKeptAt = kCellsAt + kHits * 4;
  static constexpr int kQueuesAt = kKeptAt + kMostKept * 4;
  static constexpr int kBallotsAt = kQueuesAt + kWarps * kQueued * 4;
  static constexpr int kTotalsAt = kBallotsAt + kBoxLoads * kWarps * 4;
  static constexpr int kListsAt = kTotalsAt + kWarps * 4;
  static constexpr int kOuterAt = kListsAt + kInputTilePixels * 4;
  static constexpr int kSharedBytes = kOuterAt + kRoundBoxes * 4;

  Chunk chunk;
  Positions positions;
  TapTable table;
  InputLists<Real> lists;
  InputTiling tiling;
  FastDivision32 tiles;   // of an image
  FastDivision32 images;  // of an offset group
  int image_boxes;
  int image_outer;  // outer boxes of an image, 0: they are not used

  RESNET_CUDA_BODY void operator()() const {
    Block block(*this);
    if (device::thread() < kInputTilePixels) {
      block.counts.set(device::thread(), 0);
    }
    for (Pass pass = Pass::kAll; pass != Pass::kDone;) {
      pass = run(block, pass);
    }
  }

 private:
  enum class Pass { kAll, kCount, kAppend, kDone };

  struct Block {
    const device::Shared<Weights> weights{kWeightsAt, kHits};
    const device::Shared<int> rows{kRowsAt, kHits};  // first the hit's sample: 32 * box + lane
    // The corner within the tile, from (-1, -1) on: 16 * row + column.
    const device::Shared<int> cells{kCellsAt, kHits};
    const device::Shared<int> kept{kKeptAt, kMostKept};
    const device::Shared<int> queues{kQueuesAt, kWarps* kQueued};
    const device::Shared<int> ballots{kBallotsAt, kBoxLoads* kWarps};
    const device::Shared<int> totals{kTotalsAt, kWarps};
    const device::Shared<int> outer{kOuterAt, kRoundBoxes};        // outer boxes that meet the tile
    const device::Shared<int> counts{kListsAt, kInputTilePixels};  // of the tile's lists, then where they begin
    int lane;
    int warp;
    int offset_group;
    int image;
    InputTile tile;
    int first_box;    // of the image
    int first_outer;  // of the image
    int end;          // lane x: where the list of pixel x of this warp's row goes on

    RESNET_CUDA_BODY explicit Block(const InvertTaps& body)
        : lane(device::thread() % device::kWarp), warp(device::thread() / device::kWarp), end(0) {
      const auto work = static_cast<int>(device::block());
      const int image_of_group = body.tiles.quotient(work);
      tile = body.tiling.tile(work - image_of_group * body.tiles.divisor());
      offset_group = body.images.quotient(image_of_group);
      image = image_of_group - offset_group * body.images.divisor();
      first_box = image_of_group * body.image_boxes;
      first_outer = image_of_group * body.image_outer;
    }

    RESNET_CUDA_BODY uint32_t lower_lanes() const {
      return (uint32_t{1} << lane) - 1;
    }
  };

  // One search; gives what is to be done next.
  RESNET_CUDA_BODY Pass run(Block& block, Pass pass) const {
    const int step = pass == Pass::kAll ? kMostCollected : kPartBoxes < kMostCollected ? kPartBoxes : kMostCollected;
    int held = 0;
    int kept = 0;
    for (int first_outer = 0; first_outer == 0 || first_outer < image_outer; first_outer += kRoundBoxes) {
      const bool last_outer = first_outer + kRoundBoxes >= image_outer;
      const int boxes = image_outer == 0 ? image_boxes : keep_outer_boxes(block, first_outer) * device::kWarp;
      for (int first_box = 0; first_box < boxes || (first_box == 0 && last_outer); first_box += kRoundBoxes) {
        const bool last_round = last_outer && first_box + kRoundBoxes >= boxes;
        kept = keep_boxes(block, first_box, boxes, kept);
        if (!last_round && kept <= kMostKept - kRoundBoxes) {
          continue;  // there is room for another round's
        }
        for (int first = 0; first < kept || (first == 0 && last_round); first += step) {
          const int part = kept - first < step ? kept - first : step;
          held = collect(block, first, part, pass == Pass::kAll ? held : 0);
          if (held > kHits) {
            return Pass::kCount;
          }
          if (pass == Pass::kAll && !(last_round && first + step >= kept)) {
            continue;
          }
          weigh(block, held, pass != Pass::kAppend);
          if (pass == Pass::kAll) {
            place(block);
          }
          if (pass != Pass::kCount) {
            append(block, held);
          }
        }
        kept = 0;
      }
    }
    if (pass == Pass::kCount) {
      place(block);
      return Pass::kAppend;
    }
    return Pass::kDone;
  }

  // The search for hits: cuda_invert_taps_search.cuh.
  RESNET_CUDA_BODY int keep_outer_boxes(const Block& block, int first) const;
  RESNET_CUDA_BODY int keep_boxes(const Block& block, int first, int boxes, int kept) const;
  template <typename NumberOf>
  RESNET_CUDA_BODY int keep(
      const Block& block,
      const CornerBox* boxes,
      int count,
      int first,
      const device::Shared<int>& target,
      int kept,
      const NumberOf& number_of) const;
  RESNET_CUDA_BODY int collect(const Block& block, int first, int count, int held) const;
  RESNET_CUDA_BODY static bool is_hit(const InputTile& tile, const TapCorner& corner);

  // From hits to lists: cuda_invert_taps_lists.cuh.
  RESNET_CUDA_BODY void weigh(const Block& block, int held, bool count) const;
  RESNET_CUDA_BODY void place(Block& block) const;
  RESNET_CUDA_BODY void append(Block& block, int held) const;
  RESNET_CUDA_BODY static int cell_row(int cell);
  RESNET_CUDA_BODY void append_queued(Block& block, int hit) const;
};

}  // namespace resnet_cuda
