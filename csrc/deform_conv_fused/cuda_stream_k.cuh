// How a matrix product of few tiles is divided among all multiprocessors: static stream-K (Osama et al. 2023).
#pragma once

#include "common/fast_division.h"

namespace resnet_cuda {

// The steps through K of all tiles, one tile's after the other's, are one list, of which each block takes an equal
// part, at most one step more or less. So a block has parts of one or several tiles, and a tile is summed by one or
// several blocks.
class StreamK {
 public:
  // Some steps of a tile.
  struct Part {
    int tile;
    int first;
    int end;
  };

  // `most_blocks`: as many as run at once.
  StreamK(int64_t tiles, int64_t steps, int64_t most_blocks)
      : tiles_(tiles), steps_(steps), total_(tiles * steps), blocks_(smaller(most_blocks, tiles * steps)) {
  }

  int64_t tiles() const {
    return tiles_;
  }
  int64_t blocks() const {
    return blocks_.divisor();
  }

  // The place of a block's first step in the list; for block number blocks(), the list's end.
  RESNET_CUDA_HOST_DEVICE int64_t begin(int64_t block) const {
    return blocks_.quotient(block * total_.divisor());
  }
  // The next tile, and its steps, of a block that goes on at `place` until `end`.
  RESNET_CUDA_HOST_DEVICE Part part(int64_t place, int64_t end) const {
    const int64_t tile = steps_.quotient(place);
    const int64_t first = place - tile * steps_.divisor();
    return {
        static_cast<int>(tile),
        static_cast<int>(first),
        static_cast<int>(smaller(steps_.divisor(), first + (end - place)))};
  }

  // The blocks that have steps of a tile, from the first to the last.
  RESNET_CUDA_HOST_DEVICE int64_t first_block(int64_t tile) const {
    return block_of(tile * steps_.divisor());
  }
  RESNET_CUDA_HOST_DEVICE int64_t last_block(int64_t tile) const {
    return block_of((tile + 1) * steps_.divisor() - 1);
  }

  // Where a block's sums for a tile are kept, one of places(). From one part to the next in the list the block's number
  // grows, or the tile's, or both: no two parts have the same sum.
  RESNET_CUDA_HOST_DEVICE static int64_t place(int64_t block, int64_t tile) {
    return block + tile;
  }
  static int64_t places(int64_t tiles, int64_t most_blocks) {
    return tiles + most_blocks - 1;
  }

 private:
  // The last block that begins at or before `place`: block * total < (place + 1) * blocks.
  RESNET_CUDA_HOST_DEVICE int64_t block_of(int64_t place) const {
    return total_.quotient((place + 1) * blocks_.divisor() - 1);
  }

  int64_t tiles_;
  FastDivision steps_;  // of a tile
  FastDivision total_;
  FastDivision blocks_;
};

}  // namespace resnet_cuda
