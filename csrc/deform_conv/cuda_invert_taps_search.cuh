// How a block of InvertTaps searches for the hits of its tile: keep and collect.
#pragma once

#include "deform_conv/cuda_invert_taps.cuh"

namespace resnet_cuda {

// Which outer boxes from `first` on, at most kRoundBoxes, meet the tile: how many.
template <typename Real>
RESNET_CUDA_BODY int InvertTaps<Real>::keep_outer_boxes(const Block& block, int first) const {
  return keep(block, table.outer_boxes + block.first_outer, image_outer, first, block.outer, 0, [&](int index) {
    return index;
  });
}

// Adds the boxes from candidate `first` on, at most kRoundBoxes, that meet the tile to the `kept` ones: how many
// there are then. Candidates are all `boxes` of the image, or those in the outer boxes that were kept.
template <typename Real>
RESNET_CUDA_BODY int InvertTaps<Real>::keep_boxes(const Block& block, int first, int boxes, int kept) const {
  return keep(block, table.boxes + block.first_box, boxes, first, block.kept, kept, [&](int candidate) {
    return image_outer == 0 ? candidate
                            : block.outer.get(candidate / device::kWarp) * device::kWarp + candidate % device::kWarp;
  });
}

// Adds the numbers of those of `count` boxes, from `first` on, that meet the tile to the `kept` ones, in order.
template <typename Real>
template <typename NumberOf>
RESNET_CUDA_BODY int InvertTaps<Real>::keep(
    const Block& block,
    const CornerBox* boxes,
    int count,
    int first,
    const device::Shared<int>& target,
    int kept,
    const NumberOf& number_of) const {
  // From one above the tile on: a patch reaches one further.
  const int first_row = block.tile.first_row - 1, last_row = block.tile.first_row + block.tile.rows - 1;
  const int first_column = block.tile.first_column - 1, last_column = block.tile.first_column + block.tile.columns - 1;
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
template <typename Real>
RESNET_CUDA_BODY int InvertTaps<Real>::collect(const Block& block, int first, int count, int held) const {
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

template <typename Real>
RESNET_CUDA_BODY bool InvertTaps<Real>::is_hit(const InputTile& tile, const TapCorner& corner) {
  // One comparison per axis: below the range a difference is a large unsigned number.
  return static_cast<uint32_t>(corner.row) - static_cast<uint32_t>(tile.first_row - 1) <=
             static_cast<uint32_t>(tile.rows) &&
         static_cast<uint32_t>(corner.column) - static_cast<uint32_t>(tile.first_column - 1) <=
             static_cast<uint32_t>(tile.columns);
}

}  // namespace resnet_cuda
