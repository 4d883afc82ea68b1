// Where every sample of some images reads, with a bounding box of every 32: what InvertTaps searches.
#pragma once

#include "deform_conv/cuda_chunk.cuh"
#include "deform_conv/cuda_positions.cuh"
#include "deform_conv/cuda_strips.cuh"

namespace resnet_cuda {

// The top left pixel of a sample's bilinear patch, from -1 on.
struct alignas(8) TapCorner {
  int row;
  int column;
};

// The ranges of 32 corners, both ends included.
struct alignas(16) CornerBox {
  int first_row, last_row;
  int first_column, last_column;
};

// It begins behind its end, so it meets no tile and widens no other box.
RESNET_CUDA_BODY CornerBox empty_box() {
  constexpr int kNothing = 0x7fffffff;
  return {kNothing, -kNothing, kNothing, -kNothing};
}

// The box around those of all lanes, in every lane.
RESNET_CUDA_BODY CornerBox box_of_warp(CornerBox box) {
  const auto lesser = [](int a, int b) { return a < b ? a : b; };
  const auto greater = [](int a, int b) { return a > b ? a : b; };
#pragma unroll
  for (int distance = device::kWarp / 2; distance > 0; distance /= 2) {
    box.first_row = lesser(box.first_row, RESNET_CUDA_SHUFFLE_XOR(box.first_row, distance));
    box.last_row = greater(box.last_row, RESNET_CUDA_SHUFFLE_XOR(box.last_row, distance));
    box.first_column = lesser(box.first_column, RESNET_CUDA_SHUFFLE_XOR(box.first_column, distance));
    box.last_column = greater(box.last_column, RESNET_CUDA_SHUFFLE_XOR(box.last_column, distance));
  }
  return box;
}

// The row and the column of a sample that reads nothing. No tile is so far above the image.
constexpr int kNoCorner = -1000;

// Groups of 32 output pixels are numbered [offset group][image][tap][32 pixels in strip order], the last of a tap being
// filled up with pixels that do not exist. An image's groups follow one another. Every 32 of them have an outer box.
struct TapTable {
  TapCorner* corners;         // [groups][32]
  CornerBox* boxes;           // [groups]
  CornerBox* outer_boxes;     // [offset groups][images][outer boxes of an image], where an image has many boxes
  FastDivision32 tap_groups;  // of one tap of one image
  FastDivision32 kernel_width;
  StripOrder pixels;  // of the chunk's rows

  static int groups_of(int pixels) {
    return static_cast<int>(ceil_div(pixels, device::kWarp));
  }

  // The chunk's output pixels of one image.
  static int image_pixels(const Chunk& chunk) {
    return chunk.rows * static_cast<int>(chunk.shape.out_width);
  }

  TapTable(const Chunk& chunk, TapCorner* corners, CornerBox* boxes, CornerBox* outer_boxes)
      : corners(corners),
        boxes(boxes),
        outer_boxes(outer_boxes),
        tap_groups(groups_of(image_pixels(chunk))),
        kernel_width(static_cast<int>(chunk.shape.kernel_w)),
        pixels(chunk.rows, static_cast<int>(chunk.shape.out_width)) {
  }
};

struct TapCornersWork {
  int groups;  // of all images and offset groups
  FastDivision32 taps;
  FastDivision32 images;
};

// One warp per group of 32 pixels of a tap. Also makes the lists' counters 0.
template <typename Real>
struct TapCorners {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / device::kWarp;

  Chunk chunk;
  Positions positions;
  TapTable table;
  TapCornersWork work;
  int* entry_count;
  int* long_count;

  RESNET_CUDA_BODY void operator()() const {
    const int lane = device::thread() % device::kWarp;
    const int group = static_cast<int>(device::block()) * kWarps + device::thread() / device::kWarp;
    if (group == 0 && lane == 0) {
      *entry_count = 0;
      *long_count = 0;
    }
    if (group >= work.groups) {
      return;
    }
    const int tap_of_image = table.tap_groups.quotient(group);
    const int place = (group - tap_of_image * table.tap_groups.divisor()) * device::kWarp + lane;
    const int image_of_group = work.taps.quotient(tap_of_image);
    const int tap = tap_of_image - image_of_group * work.taps.divisor();
    const int offset_group = work.images.quotient(image_of_group);
    const int image = image_of_group - offset_group * work.images.divisor();

    TapCorner corner{kNoCorner, kNoCorner};
    CornerBox box = empty_box();
    if (place < chunk.rows * static_cast<int>(chunk.shape.out_width)) {
      const StripPixel pixel = table.pixels.pixel(place);
      const auto [sample, mask] = positions.sample<Real>(
          chunk.shape,
          table.kernel_width,
          {chunk.first_image + image, chunk.first_row + pixel.row, pixel.column, offset_group, tap});
      if (sample.kind == TapKind::kInside) {
        corner = {sample.top, sample.left};
        box = {sample.top, sample.top, sample.left, sample.left};
      }
    }
    table.corners[static_cast<int64_t>(group) * device::kWarp + lane] = corner;
    box = box_of_warp(box);
    if (lane == 0) {
      table.boxes[group] = box;
    }
  }
};

// One warp per outer box.
struct OuterBoxes {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / device::kWarp;

  TapTable table;
  int image_boxes;
  int count;                   // of outer boxes
  FastDivision32 image_outer;  // outer boxes of an image

  RESNET_CUDA_BODY void operator()() const {
    const int lane = device::thread() % device::kWarp;
    const int outer = static_cast<int>(device::block()) * kWarps + device::thread() / device::kWarp;
    if (outer >= count) {
      return;
    }
    const int image_of_group = image_outer.quotient(outer);
    const int in_image = image_outer.remainder(outer) * device::kWarp + lane;
    CornerBox box = empty_box();
    if (in_image < image_boxes) {
      box = table.boxes[image_of_group * image_boxes + in_image];
    }
    box = box_of_warp(box);
    if (lane == 0) {
      table.outer_boxes[outer] = box;
    }
  }
};

}  // namespace resnet_cuda
