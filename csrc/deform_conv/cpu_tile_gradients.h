// A tile of the output's gradient, packed for the two products of the backward, and its sum for the bias.
#pragma once

#include "deform_conv/cpu_forward.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::BackwardTask;

// One copy per thread, though all threads need equal ones: packing is cheap, the copy stays in the thread's cache, and
// there is no false sharing.
template <typename Real>
struct TileGradients {
  Real* rows;    // [pixel][O], for grad * weight
  Real* panels;  // [group][panel][kTilePixels][lane], for columns^T * grad; lanes beyond the group's last output are 0

  static int64_t row_elements(const DeformConvShape& shape) {
    return kTilePixels * shape.out_channels;
  }
  static int64_t panel_elements(const DeformConvShape& shape) {
    return kTilePixels * shape.groups * padded_group_outputs<Real>(shape);
  }
};

// A vector of output channels in the panels.
template <typename Real>
struct PanelVector {
  int64_t first_output;
  int64_t outputs;  // of the group, from there on: at most a vector, perhaps none
  Real* target;     // for pixel 0
  int64_t pixel_stride;
};

// Calls visit(PanelVector) for every group and vector.
template <typename Real, typename Visit>
RESNET_CUDA_INLINE void
for_each_panel_vector(const DeformConvShape& shape, const TileGradients<Real>& tile, const Visit& visit) {
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t panel = panel_for<Real>(group_outputs);
  for (int64_t group = 0; group < shape.groups; ++group) {
    for (int64_t out = 0; out < padded_outputs; out += kLanes<Real>) {
      const int64_t remaining = group_outputs - out;
      const int64_t count = remaining < 0 ? 0 : smaller(remaining, kLanes<Real>);
      Real* target = tile.panels + (group * padded_outputs + out / panel * panel) * kTilePixels + out % panel;
      visit(PanelVector<Real>{group * group_outputs + out, count, target, panel});
    }
  }
}

// Pixels [0, pixels) of one image, whose channels are adjacent in memory at `source`.
template <typename T>
RESNET_CUDA_INLINE void
pack_channels_last(const BackwardTask& task, const T* source, int64_t pixels, const TileGradients<RealOf<T>>& tile) {
  using Real = RealOf<T>;
  const int64_t outputs = task.shape.out_channels;
  const int64_t elements = pixels * outputs;
  for (int64_t i = 0; i < elements; i += kLanes<Real>) {
    const int64_t count = smaller(kLanes<Real>, elements - i);
    store_up_to(load_up_to(source + i, count), tile.rows + i, count);
  }
  for_each_panel_vector(task.shape, tile, [&](const PanelVector<Real>& vector) __attribute__((always_inline)) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const Real* source = tile.rows + pixel * outputs + vector.first_output;
      store(load_up_to(source, vector.outputs), vector.target + pixel * vector.pixel_stride);
    }
  });
}

// Pixels [0, pixels) of one image, each channel's pixels being adjacent in memory, from `source` on.
template <typename T>
RESNET_CUDA_INLINE void
pack_contiguous(const BackwardTask& task, const T* source, int64_t pixels, const TileGradients<RealOf<T>>& tile) {
  using Real = RealOf<T>;
  const int64_t outputs = task.shape.out_channels;
  for_each_panel_vector(task.shape, tile, [&](const PanelVector<Real>& vector) __attribute__((always_inline)) {
    for (int64_t lane = 0; lane < kLanes<Real>; ++lane) {
      const T* channel = source + (vector.first_output + lane) * task.grad.channel;
      for (int64_t pixel = 0; pixel < pixels; pixel += kLanes<Real>) {
        const int64_t count = smaller(kLanes<Real>, pixels - pixel);
        const Vec<Real> value = lane < vector.outputs ? load_up_to(channel + pixel, count) : Vec<Real>{};
        for (int64_t i = 0; i < count; ++i) {
          vector.target[(pixel + i) * vector.pixel_stride + lane] = value[i];
        }
      }
    }
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      Real* row = tile.rows + pixel * outputs + vector.first_output;
      store_up_to(load(vector.target + pixel * vector.pixel_stride), row, vector.outputs);
    }
  });
}

// Packs the pixels [first, first + pixels), counted over all images. Rows from `pixels` to `tile_rows`, which the
// register blocks read too, become 0.
template <typename T>
RESNET_CUDA_INLINE void pack_gradients(
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
      pack_channels_last(task, source, count, part);
    } else {
      pack_contiguous(task, source, count, part);
    }
    done += count;
    in_image = 0;
    image += task.grad.image;
  }
  memset(tile.rows + pixels * shape.out_channels, 0, sizeof(Real) * (tile_rows - pixels) * shape.out_channels);
}

// Where columns are pairs, replaces the tile's rows by pairs of outputs and its panels by pairs of pixels.
template <typename Column>
RESNET_CUDA_INLINE void pair_gradients(
    const DeformConvShape& shape,
    int64_t pixels,
    int64_t tile_rows,
    const TileGradients<RealOf<Column>>& tile) {
  using Real = RealOf<Column>;
  if constexpr (kColumnChannels<Column> == 2) {
    const int64_t group_outputs = shape.group_out_channels();
    for (int64_t i = 0; i < tile_rows * shape.groups; ++i) {
      pair_elements<Column>(tile.rows + i * group_outputs, group_outputs);
    }
    const int64_t panel = panel_for<Real>(group_outputs);
    const int64_t columns = shape.groups * padded_group_outputs<Real>(shape);
    for (int64_t column = 0; column < columns; column += panel) {
      pair_rows<Column>(tile.panels + column * kTilePixels, pixels, panel, panel);
    }
  }
}

// Adds the tile's sums to the bias's gradient, for the range's share of the outputs. Summed in blocks of pixels, so
// that rounding errors grow with the number of blocks, not of pixels.
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
