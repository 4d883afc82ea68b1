// How a block of InvertTaps makes the lists of its tile from the hits: weigh, place and append.
#pragma once

#include "deform_conv/cuda_invert_taps.cuh"

namespace resnet_cuda {

// The weights of the hits in the buffer; with `count` also the lengths that they add to the lists.
template <typename Real>
RESNET_CUDA_BODY void InvertTaps<Real>::weigh(const Block& block, int held, bool count) const {
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
template <typename Real>
RESNET_CUDA_BODY void InvertTaps<Real>::place(Block& block) const {
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
template <typename Real>
RESNET_CUDA_BODY void InvertTaps<Real>::append(Block& block, int held) const {
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

template <typename Real>
RESNET_CUDA_BODY int InvertTaps<Real>::cell_row(int cell) {
  return (cell >> 4) - 1;
}

// One hit per lane, or -1, in order.
template <typename Real>
RESNET_CUDA_BODY void InvertTaps<Real>::append_queued(Block& block, int hit) const {
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

}  // namespace resnet_cuda
