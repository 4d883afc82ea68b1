// The gradients of a tile's results in the two orders that the backward's products read, and their sum for the bias.
#pragma once

#include "deform_conv/cpu_forward.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::BackwardTask;

// Every thread lays them out for itself: they are soon done, and they stay in its cache.
template <typename Real>
struct TileGradients {
  Real* rows;    // [pixel][O]
  Real* panels;  // [group][panel][kTilePixels][lane]; lanes beyond the group's last output are 0

  static int64_t row_elements(const DeformConvShape& shape) {
    return kTilePixels * shape.out_channels;
  }
  static int64_t panel_elements(const DeformConvShape& shape) {
    return kTilePixels * shape.groups * padded_group_outputs<Real>(shape);
  }
};

// Calls visit(first output of a vector; outputs of the group from there on, at most a vector and perhaps none; where
// the panels hold it for pixel 0; how far apart the pixels are there) for every group and vector.
template <typename Real, typename Visit>
RESNET_CUDA_INLINE void
for_each_panel_vector(const DeformConvShape& shape, const TileGradients<Real>& tile, const Visit& visit) {
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t panel = panel_for<Real>(group_outputs);
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t out = 0; out < padded_outputs; out += kLanes<Real>) {
      const int64_t left = group_outputs - out;
      const int64_t count = left < 0 ? 0 : smaller(left, kLanes<Real>);
      Real* target = tile.panels + (group * padded_outputs + out / panel * panel) * kTilePixels + out % panel;
      visit(group * group_outputs + out, count, target, panel);
    }
  }
}

// Pixels [0, pixels) of one image, whose channels are adjacent in memory at `source`.
template <typename T>
RESNET_CUDA_INLINE void
lay_out_channels_last(const BackwardTask& task, const T* source, int64_t pixels, const TileGradients<RealOf<T>>& tile) {
  using Real = RealOf<T>;
  const int64_t outputs = task.shape.out_channels;
  const int64_t elements = pixels * outputs;
  for (int64_t i = 0; i < elements; i += kLanes<Real>) {
    const int64_t count = smaller(kLanes<Real>, elements - i);
    store_up_to(load_up_to(source + i, count), tile.rows + i, count);
  }
  for_each_panel_vector(
      task.shape,
      tile,
      [&](int64_t first, int64_t count, Real* panel, int64_t panel_step) __attribute__((always_inline)) {
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          store(load_up_to(tile.rows + pixel * outputs + first, count), panel + pixel * panel_step);
        }
      });
}

// The same for pixels that are adjacent in memory.
template <typename T>
RESNET_CUDA_INLINE void
lay_out_contiguous(const BackwardTask& task, const T* source, int64_t pixels, const TileGradients<RealOf<T>>& tile) {
  using Real = RealOf<T>;
  const int64_t outputs = task.shape.out_channels;
  for_each_panel_vector(
      task.shape,
      tile,
      [&](int64_t first, int64_t count, Real* panel, int64_t panel_step) __attribute__((always_inline)) {
        for (int64_t lane = 0; lane < kLanes<Real>; ++lane) {
          const T* from = source + (first + lane) * task.grad.channel;
          for (int64_t pixel = 0; pixel < pixels; pixel += kLanes<Real>) {
            const int64_t some = smaller(kLanes<Real>, pixels - pixel);
            const Vec<Real> value = lane < count ? load_up_to(from + pixel, some) : Vec<Real>{};
            for (int64_t i = 0; i < some; ++i) {
              panel[(pixel + i) * panel_step + lane] = value[i];
            }
          }
        }
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          store_up_to(load(panel + pixel * panel_step), tile.rows + pixel * outputs + first, count);
        }
      });
}

// Pixels [first, first + pixels), counted over all images. Rows up to `tile_rows` are 0: the register blocks read them.
template <typename T>
RESNET_CUDA_INLINE void lay_out_gradients(
    const BackwardTask& task,
    int64_t first,
    int64_t pixels,
    int64_t tile_rows,
    const TileGradients<RealOf<T>>& tile) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t panel = panel_for<Real>(shape.group_out_channels());
  int64_t in_image = first % shape.out_pixels();
  const T* image = static_cast<const T*>(task.grad.data) + first / shape.out_pixels() * task.grad.image;
  for (int64_t done = 0; done < pixels;) {
    const int64_t count = smaller(pixels - done, shape.out_pixels() - in_image);
    const TileGradients<Real> part{tile.rows + done * shape.out_channels, tile.panels + done * panel};
    const T* source = image + in_image * task.grad.pixel;
    if (task.grad.channel == 1) {
      lay_out_channels_last(task, source, count, part);
    } else {
      lay_out_contiguous(task, source, count, part);
    }
    done += count;
    in_image = 0;
    image += task.grad.image;
  }
  memset(tile.rows + pixels * shape.out_channels, 0, sizeof(Real) * (tile_rows - pixels) * shape.out_channels);
}

// Adds the tile's sums to the bias's gradient, for the outputs that fall to the range. In blocks of pixels, so that
// rounding errors grow with the number of blocks and not of pixels.
template <typename Real>
RESNET_CUDA_INLINE void
add_bias_gradient(const BackwardTask& task, int64_t range, int64_t pixels, const TileGradients<Real>& tile) {
  constexpr int64_t kBlock = 24;
  const int64_t outputs = task.shape.out_channels;
  const int64_t vectors = ceil_div(outputs, kLanes<Real>);
  const int64_t end = (range + 1) * vectors / task.range_count;
  for (int64_t vector = range * vectors / task.range_count; vector < end; ++vector) {
    const int64_t out = vector * kLanes<Real>;
    const int64_t count = smaller(kLanes<Real>, outputs - out);
    Vec<Real> sum{};
    for (int64_t block = 0; block < pixels; block += kBlock) {
      Vec<Real> block_sum{};
      for (int64_t pixel = block; pixel < smaller(block + kBlock, pixels); ++pixel) {
        block_sum += load_up_to(tile.rows + pixel * outputs + out, count);
      }
      sum += block_sum;
    }
    Real* target = static_cast<Real*>(task.grad_bias) + out;
    store_up_to(load_up_to(target, count) + sum, target, count);
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
