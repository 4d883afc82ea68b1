// Input pixels in tiles of 8 x 8, and the order of their lists (cuda_input_lists.cuh).
#pragma once

#include "deform_conv/cuda_strips.cuh"

namespace resnet_cuda {

constexpr int kInputTileRows = kStripRows;
constexpr int kInputTileColumns = 8;
constexpr int kInputTilePixels = kInputTileRows * kInputTileColumns;

// A tile is a part of a strip (cuda_strips.cuh), so that its pixels follow one another in strip order.
struct InputTile {
  int first_row;
  int first_column;
  int rows;
  int columns;
  int first_place;  // of its first pixel, in the image's strip order

  // In strip order, of a pixel of the tile.
  RESNET_CUDA_HOST_DEVICE int place(int row, int column) const {
    return first_place + column * rows + row;
  }
};

class InputTiling {
 public:
  InputTiling(int height, int width)
      : height_(height),
        width_(width),
        down_(static_cast<int>(ceil_div(height, kInputTileRows))),
        across_(static_cast<int>(ceil_div(width, kInputTileColumns))) {
  }

  // The number of tiles of an image.
  RESNET_CUDA_HOST_DEVICE int tiles() const {
    return down_ * across_.divisor();
  }

  RESNET_CUDA_HOST_DEVICE InputTile tile(int index) const {
    const int down = across_.quotient(index);
    InputTile tile;
    tile.first_row = down * kInputTileRows;
    tile.first_column = (index - down * across_.divisor()) * kInputTileColumns;
    const int rows_left = height_ - tile.first_row;
    const int columns_left = width_ - tile.first_column;
    tile.rows = rows_left < kInputTileRows ? rows_left : kInputTileRows;
    tile.columns = columns_left < kInputTileColumns ? columns_left : kInputTileColumns;
    tile.first_place = tile.first_row * width_ + tile.first_column * tile.rows;
    return tile;
  }

 private:
  int height_;
  int width_;
  int down_;
  FastDivision32 across_;
};

}  // namespace resnet_cuda
