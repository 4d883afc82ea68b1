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

  // Which outer boxes from `first` on, at most kRoundBoxes, meet the tile: how many.
  RESNET_CUDA_BODY int keep_outer_boxes(const Block& block, int first) const {
    return keep(block, table.outer_boxes + block.first_outer, image_outer, first, block.outer, 0, [&](int index) {
      return index;
    });
  }

  // Adds the boxes from candidate `first` on, at most kRoundBoxes, that meet the tile to the `kept` ones: how many
  // there are then. Candidates are all `boxes` of the image, or those in the outer boxes that were kept.
  RESNET_CUDA_BODY int keep_boxes(const Block& block, int first, int boxes, int kept) const {
    return keep(block, table.boxes + block.first_box, boxes, first, block.kept, kept, [&](int candidate) {
      return image_outer == 0 ? candidate
                              : block.outer.get(candidate / device::kWarp) * device::kWarp + candidate % device::kWarp;
    });
  }

  // Adds the numbers of those of `count` boxes, from `first` on, that meet the tile to the `kept` ones, in order.
  template <typename NumberOf>
  RESNET_CUDA_BODY int keep(
      const Block& block,
      const CornerBox* boxes,
      int count,
      int first,
      const device::Shared<int>& target,
      int kept,
      const NumberOf& number_of) const {
    // From one above the tile on: a patch reaches one further.
    const int first_row = block.tile.first_row - 1, last_row = block.tile.first_row + block.tile.rows - 1;
    const int first_column = block.tile.first_column - 1,
              last_column = block.tile.first_column + block.tile.columns - 1;
    uint32_t ballot[kBoxLoads];
    int number[kBoxLoads];
    CornerBox box[kBoxLoads];
#pragma unroll
    for (int i = 0; i < kBoxLoads; ++i) {
      const int candidate = first + i * kThreads + device::thread();
      box[i] = empty_box();
      // The last outer box of an image is not full.
      number[i] = candidate < count ? number_of(candidate) : image_boxes;
      if (number[i] < image_boxes) {
        box[i] = boxes[number[i]];
      }
    }
#pragma unroll
    for (int i = 0; i < kBoxLoads; ++i) {
      const bool meets = box[i].last_row >= first_row && box[i].first_row <= last_row &&
                         box[i].last_column >= first_column && box[i].first_column <= last_column;
      ballot[i] = RESNET_CUDA_BALLOT(meets);
      if (block.lane == 0) {
        block.ballots.set(i * kWarps + block.warp, device::count_bits(ballot[i]));
      }
    }
    RESNET_CUDA_SYNC_BLOCK();
    const int warp_count = block.ballots.get(block.lane);  // of warp and load number `lane`
    const int sum = warp_inclusive_sum(warp_count);
#pragma unroll
    for (int i = 0; i < kBoxLoads; ++i) {
      const int before = RESNET_CUDA_SHUFFLE(sum - warp_count, i * kWarps + block.warp);
      if ((ballot[i] >> block.lane & 1) != 0) {
        target.set(kept + before + device::count_bits(ballot[i] & block.lower_lanes()), number[i]);
      }
    }
    const int added = RESNET_CUDA_SHUFFLE(sum, device::kWarp - 1);
    RESNET_CUDA_SYNC_BLOCK();
    return kept + added;
  }

  // Adds the hits of `count` kept boxes to the `held` in the buffer. Gives how many there are then; where that is more
  // than kHits, nothing has been written.
  RESNET_CUDA_BODY int collect(const Block& block, int first, int count, int held) const {
    const int share = (count + kWarps - 1) / kWarps;
    const int begin = block.warp * share;
    const int boxes = count - begin < share ? count - begin : share;
    uint32_t mine = 0;  // lane i: the ballot of the warp's box i
    constexpr int kLoads = 6;
    for (int i = 0; i < boxes; i += kLoads) {
      TapCorner corner[kLoads];
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        const int box = i + j < boxes ? i + j : i;
        const int64_t group = block.first_box + block.kept.get(first + begin + box);
        corner[j] = table.corners[group * device::kWarp + block.lane];
      }
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        const uint32_t ballot = RESNET_CUDA_BALLOT(is_hit(block.tile, corner[j]));
        if (block.lane == i + j && i + j < boxes) {
          mine = ballot;
        }
      }
    }
    const int hits = device::count_bits(mine);
    const int sum = warp_inclusive_sum(hits);
    if (block.lane == device::kWarp - 1) {
      block.totals.set(block.warp, sum);
    }
    RESNET_CUDA_SYNC_BLOCK();
    int to = held + sum - hits;
    int total = held;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const int warp_total = block.totals.get(i);
      to += i < block.warp ? warp_total : 0;
      total += warp_total;
    }
    if (total <= kHits && mine != 0) {
      const int box = block.kept.get(first + begin + block.lane);
      do {
        const int bit = device::lowest_bit(mine);
        mine &= mine - 1;
        block.rows.set(to++, box * device::kWarp + bit);
      } while (mine != 0);
    }
    RESNET_CUDA_SYNC_BLOCK();
    return total;
  }

  RESNET_CUDA_BODY static bool is_hit(const InputTile& tile, const TapCorner& corner) {
    // One comparison per axis: below the range a difference is a large unsigned number.
    return static_cast<uint32_t>(corner.row) - static_cast<uint32_t>(tile.first_row - 1) <=
               static_cast<uint32_t>(tile.rows) &&
           static_cast<uint32_t>(corner.column) - static_cast<uint32_t>(tile.first_column - 1) <=
               static_cast<uint32_t>(tile.columns);
  }

  // The weights of the hits in the buffer; with `count` also the lengths that they add to the lists.
  RESNET_CUDA_BODY void weigh(const Block& block, int held, bool count) const {
    for (int i = device::thread(); i < held; i += kThreads) {
      const int hit = block.rows.get(i);
      const int box = static_cast<int>(static_cast<uint32_t>(hit) / device::kWarp);
      const int tap = table.tap_groups.quotient(box);
      const int place = hit - tap * table.tap_groups.divisor() * device::kWarp;
      const StripPixel pixel = table.pixels.pixel(place);
      const auto [sample, mask] = positions.sample<Real>(
          chunk.shape,
          table.kernel_width,
          {chunk.first_image + block.image, chunk.first_row + pixel.row, pixel.column, block.offset_group, tap});
      const int row = sample.top - block.tile.first_row;
      const int column = sample.left - block.tile.first_column;
      Weights weights;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        const int y = row + corner / 2;
        const int x = column + corner % 2;
        const bool inside = static_cast<uint32_t>(y) < static_cast<uint32_t>(block.tile.rows) &&
                            static_cast<uint32_t>(x) < static_cast<uint32_t>(block.tile.columns);
        const Real weight = inside ? sample.corner_weight(corner) * mask : Real(0);
        weights.corner[corner] = weight;
        if (count && weight != Real(0)) {
          block.counts.add(x * block.tile.rows + y, 1);
        }
      }
      block.weights.set(i, weights);
      const int width = static_cast<int>(chunk.shape.out_width);
      block.rows.set(i, (pixel.row * width + pixel.column) * static_cast<int>(chunk.shape.taps()) + tap);
      block.cells.set(i, (row + 1) * 16 + column + 1);
    }
    RESNET_CUDA_SYNC_BLOCK();
  }

  // From the lists' lengths to their places among the entries.
  RESNET_CUDA_BODY void place(Block& block) const {
    const int pixels = block.tile.rows * block.tile.columns;
    if (block.warp == 0) {
      // Lane i: lists 2 * i and 2 * i + 1.
      const int list = 2 * block.lane;
      const int length[2] = {block.counts.get(list), block.counts.get(list + 1)};
      const int sum = warp_inclusive_sum(length[0] + length[1]);
      int begin = 0;
      if (block.lane == device::kWarp - 1) {
        begin = device::atomic_add(lists.entry_count, sum);
      }
      begin = RESNET_CUDA_SHUFFLE(begin, device::kWarp - 1) + sum - length[0] - length[1];
      const int first_list =
          (block.offset_group * lists.images + block.image) * chunk.input_pixels() + block.tile.first_place;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        block.counts.set(list + i, begin);
        if (list + i < pixels) {
          lists.ranges[first_list + list + i] = {begin, length[i]};
          if (is_long_list(length[i])) {
            lists.long_lists[device::atomic_add(lists.long_count, 1)] = first_list + list + i;
          }
        }
        begin += length[i];
      }
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (block.warp < block.tile.rows && block.lane < block.tile.columns) {
      block.end = block.counts.get(block.lane * block.tile.rows + block.warp);
    }
  }

  // Appends the hits in the buffer to the lists of this warp's row.
  RESNET_CUDA_BODY void append(Block& block, int held) const {
    const int queue = block.warp * kQueued;
    int head = 0, tail = 0;  // of the hits that meet the row
    for (int first = 0; first < held; first += device::kWarp) {
      const int hit = first + block.lane;
      const int row = hit < held ? cell_row(block.cells.get(hit)) : -2;
      const bool meets = row == block.warp || row == block.warp - 1;
      const uint32_t ballot = RESNET_CUDA_BALLOT(meets);
      if (meets) {
        block.queues.set(queue + ((tail + device::count_bits(ballot & block.lower_lanes())) & (kQueued - 1)), hit);
      }
      tail += device::count_bits(ballot);
      RESNET_CUDA_SYNC_WARP();
      const int enough = first + device::kWarp < held ? device::kWarp : 1;
      while (tail - head >= enough) {
        const int in_queue = head + block.lane;
        append_queued(block, in_queue < tail ? block.queues.get(queue + (in_queue & (kQueued - 1))) : -1);
        head = tail - head < device::kWarp ? tail : head + device::kWarp;
      }
      RESNET_CUDA_SYNC_WARP();  // the next round writes where this one has read
    }
  }

  RESNET_CUDA_BODY static int cell_row(int cell) {
    return (cell >> 4) - 1;
  }

  // One hit per lane, or -1, in order.
  RESNET_CUDA_BODY void append_queued(Block& block, int hit) const {
    Real left_weight = Real(0), right_weight = Real(0);
    int row = 0, left = -1;
    if (hit >= 0) {
      const int cell = block.cells.get(hit);
      const Weights weights = block.weights.get(hit);
      const bool upper = cell_row(cell) == block.warp;  // the patch's upper row is this row of the tile
      left_weight = upper ? weights.corner[0] : weights.corner[2];
      right_weight = upper ? weights.corner[1] : weights.corner[3];
      row = block.rows.get(hit);
      left = (cell & 15) - 1;
    }
    const bool has_left = left_weight != Real(0), has_right = right_weight != Real(0);
    // Bit x + 1: appends to the list of pixel x.
    const uint32_t appends = (has_left ? uint32_t{1} << (left + 1) : 0) | (has_right ? uint32_t{1} << (left + 2) : 0);
    uint32_t mine = 0;  // lane x: who appends to the list of pixel x
#pragma unroll
    for (int x = 0; x < kInputTileColumns; ++x) {
      const uint32_t ballot = RESNET_CUDA_BALLOT((appends >> (x + 1) & 1) != 0);
      mine = block.lane == x ? ballot : mine;
    }
    const int left_lane = left & (device::kWarp - 1), right_lane = (left + 1) & (device::kWarp - 1);
    const uint32_t left_ballot = static_cast<uint32_t>(RESNET_CUDA_SHUFFLE(static_cast<int>(mine), left_lane));
    const uint32_t right_ballot = static_cast<uint32_t>(RESNET_CUDA_SHUFFLE(static_cast<int>(mine), right_lane));
    const int left_end = RESNET_CUDA_SHUFFLE(block.end, left_lane);
    const int right_end = RESNET_CUDA_SHUFFLE(block.end, right_lane);
    if (has_left) {
      lists.entries[left_end + device::count_bits(left_ballot & block.lower_lanes())] = {left_weight, row};
    }
    if (has_right) {
      lists.entries[right_end + device::count_bits(right_ballot & block.lower_lanes())] = {right_weight, row};
    }
    block.end += device::count_bits(mine);
  }
};

}  // namespace resnet_cuda
