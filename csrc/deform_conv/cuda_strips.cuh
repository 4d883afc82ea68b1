// Output pixels in strip order, the order in which the CUDA kernels' blocks take them.
#pragma once

#include "common/fast_division.h"

namespace resnet_cuda {

constexpr int kStripRows = 8;
static_assert(kStripRows > 0, "a strip has rows");

struct StripPixel {
  int row;
  int column;
};

// Strip order: the pixels of an image in strips of kStripRows rows, column by column within a strip; the last strip may
// have fewer rows. 32 consecutive pixels are mostly an 8 x 4 neighbourhood, which reads the same cache lines. Unlike
// rectangular tiles, strips leave no threads idle at an image's edges.
class StripOrder {
 public:
  StripOrder(int height, int width)
      : full_rows_(height - height % kStripRows),
        strip_pixels_((height < kStripRows ? height : kStripRows) * width),  // at most height * width: no overflow
        last_rows_(height % kStripRows == 0 ? kStripRows : height % kStripRows) {
  }

  // The position of pixel number `index` < height * width.
  RESNET_CUDA_HOST_DEVICE StripPixel pixel(int index) const {
    const int strip = strip_pixels_.quotient(index);
    const int in_strip = index - strip * strip_pixels_.divisor();
    const int first_row = strip * kStripRows;
    if (first_row < full_rows_) {
      return {first_row + in_strip % kStripRows, in_strip / kStripRows};
    }
    const int column = last_rows_.quotient(in_strip);
    return {first_row + in_strip - column * last_rows_.divisor(), column};
  }

 private:
  int full_rows_;  // of all strips but a lower last one
  FastDivision32 strip_pixels_;
  FastDivision32 last_rows_;
};

}  // namespace resnet_cuda
