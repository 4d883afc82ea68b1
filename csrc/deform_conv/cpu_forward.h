// Forward of the deformable convolution on a CPU, for one element type and one instruction set.
#pragma once

#include "common/gemm_micro.h"
#include "deform_conv/cpu_sampling.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::ForwardTask;
using deform_conv_cpu::kSlabColumns;
using deform_conv_cpu::kTilePixels;

static_assert(kTilePixels % kBlockRows == 0 && deform_conv_cpu::kPixelStep % kBlockRows == 0);

// The forward's plan of a tap: four pixels (their channel 0) and their bilinear weights times the mask. A corner that
// must not be read points at zeros, so that not even an infinite value of the image reaches the sum.
template <typename T>
struct ForwardTap {
  const T* corner[4];
  RealOf<T> weight[4];
};

template <typename T>
RESNET_CUDA_INLINE void
plan_forward(const Task& task, const Slab& slab, int64_t begin, int64_t end, ForwardTap<T>* plan) {
  using Real = RealOf<T>;
  const T* input = static_cast<const T*>(task.input);
  const T* zeros = static_cast<const T*>(task.zeros);
  const int64_t channels = task.shape.channels;
  const FourCorners steps = corner_steps(task.shape) * channels;
  const int64_t tap_count = slab.tap_count;
  for_each_tap<Real>(task, slab, begin, end, [&](const TapVector<Real>& taps) __attribute__((always_inline)) {
    const auto inside = taps.sample.is(TapKind::kInside);
    const Vec<Real> elsewhere = taps.sample.is(TapKind::kNan) ? not_a_number<Real>() + Vec<Real>{} : Vec<Real>{};
    Vec<Real> weight[4];
    for (int i = 0; i < 4; ++i) {
      weight[i] = (inside ? taps.sample.corner_weight(i) : elsewhere) * taps.mask;
    }
    const auto corners = inside & taps.sample.corners;
    for (int64_t lane = 0; lane < taps.count; ++lane) {
      ForwardTap<T>& target = plan[(taps.pixel + lane) * tap_count + taps.tap];
      const int64_t first = taps.first_corner(task.shape, lane);
      store_addresses(
          corners_of(corners[lane]) ? addresses_of(input, first * channels + steps)
                                    : FourCorners{} + reinterpret_cast<intptr_t>(zeros),
          target.corner);
      store_lane<Real>(weight, lane, target.weight);
    }
  });
}

// The im2col rows of one slab: columns[pixel][tap][channel].
template <typename T>
RESNET_CUDA_INLINE void sample_slab(const Slab& slab, int64_t pixels, const ForwardTap<T>* plan, RealOf<T>* columns) {
  using Real = RealOf<T>;
  const int64_t channels = slab.channel_count;
  const int64_t whole = channels / kLanes<Real> * kLanes<Real>;
  // Prefetching pays only where a pixel's channels span several cache lines.
  const bool more_than_a_line = channels * static_cast<int64_t>(sizeof(T)) > kCacheLine;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Real* target = columns + pixel * kSlabColumns;
    const ForwardTap<T>* taps = plan + pixel * slab.tap_count;
    for (int64_t tap = 0; tap < slab.tap_count; ++tap, target += channels) {
      const ForwardTap<T>& planned = taps[tap];
      if (more_than_a_line && pixel + kPrefetchDistance < pixels) {
        prefetch_bottom_corners(taps[kPrefetchDistance * slab.tap_count + tap].corner, slab);
      }
      const T* corner[4];
      for (int i = 0; i < 4; ++i) {
        corner[i] = planned.corner[i] + slab.channel_begin;
      }
      for (int64_t c = 0; c < whole; c += kLanes<Real>) {
        store(
            planned.weight[0] * load(corner[0] + c) + planned.weight[1] * load(corner[1] + c) +
                planned.weight[2] * load(corner[2] + c) + planned.weight[3] * load(corner[3] + c),
            target + c);
      }
      if (whole < channels) {
        const int64_t rest = channels - whole;
        store_partial(
            planned.weight[0] * load_partial(corner[0] + whole, rest) +
                planned.weight[1] * load_partial(corner[1] + whole, rest) +
                planned.weight[2] * load_partial(corner[2] + whole, rest) +
                planned.weight[3] * load_partial(corner[3] + whole, rest),
            target + whole,
            rest);
      }
    }
  }
}

template <typename Real>
RESNET_CUDA_INLINE int64_t padded_group_outputs(const DeformConvShape& shape) {
  const int64_t panel = panel_for<Real>(shape.group_out_channels());
  return ceil_div(shape.group_out_channels(), panel) * panel;
}

// Channels whose weights are transposed at a time, through a small contiguous block: the strides of the weight's rows
// and of the packed columns are multiples of large powers of 2, so that direct copies would suffer conflict misses.
constexpr int64_t kPackedChannels = 4;

// packed[group][panel][column][lane]: the weights in the order of the slabs' columns. Packs panels [panel_begin,
// panel_end), counted over all groups.
template <typename T>
void pack_forward(const Task& task, int64_t panel_begin, int64_t panel_end, void* packed) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t taps = shape.taps();
  const int64_t group_columns = shape.group_channels() * taps;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t panel = panel_for<Real>(group_outputs);
  const int64_t group_panels = padded_group_outputs<Real>(shape) / panel;
  // Lanes beyond the last output stay 0.
  Real block[kPackedChannels][kSlabTaps][kBlockVectors * kLanes<Real>];
  for (int64_t index = panel_begin; index < panel_end; ++index) {
    memset(block, 0, sizeof(block));
    const int64_t group = index / group_panels;
    const int64_t first_output = index % group_panels * panel;
    const int64_t outputs = smaller(panel, group_outputs - first_output);
    const T* rows = static_cast<const T*>(task.weight) + (group * group_outputs + first_output) * group_columns;
    for (int64_t s = 0; s < task.slab_count; ++s) {
      const Slab& slab = task.slabs[s];
      if (slab.group != group) {
        continue;
      }
      Real* target = static_cast<Real*>(packed) + (index * group_columns + slab.column_begin) * panel;
      const T* first = rows + (slab.channel_begin - group * shape.group_channels()) * taps + slab.tap_begin;
      for (int64_t c_begin = 0; c_begin < slab.channel_count; c_begin += kPackedChannels) {
        const int64_t count = smaller(kPackedChannels, slab.channel_count - c_begin);
        for (int64_t lane = 0; lane < outputs; ++lane) {
          const T* source = first + lane * group_columns + c_begin * taps;
          for (int64_t c = 0; c < count; ++c, source += taps) {
            for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
              block[c][tap][lane] = to_real(source[tap]);
            }
          }
        }
        for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
          for (int64_t c = 0; c < count; ++c) {
            Real* column = target + (tap * slab.channel_count + c_begin + c) * panel;
            for (int64_t lane = 0; lane < panel; lane += kLanes<Real>) {
              store(load(block[c][tap] + lane), column + lane);
            }
          }
        }
      }
    }
  }
}

// Workspace: the tile's results [kTilePixels][groups * padded Og], its columns [kTilePixels][kSlabColumns], the plan.
template <typename T>
int64_t forward_workspace(const DeformConvShape& shape) {
  using Real = RealOf<T>;
  return static_cast<int64_t>(sizeof(Real)) * kTilePixels *
             (shape.groups * padded_group_outputs<Real>(shape) + kSlabColumns) +
         static_cast<int64_t>(sizeof(ForwardTap<T>)) * kTilePixels * kSlabTaps;
}

template <typename T>
RESNET_CUDA_INLINE void
write_tile(const ForwardTask& task, int64_t begin, int64_t end, const RealOf<T>* results, int64_t row_stride) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const T* bias = static_cast<const T*>(task.bias);
  for (int64_t group = 0; group < shape.groups; ++group) {
    const Real* group_results = results + group * padded_outputs;
    PixelCursor cursor(shape, begin);
    if (task.output.channel == 1 && bias == nullptr) {
      for (int64_t pixel = begin; pixel < end; ++pixel, cursor.advance(shape)) {
        T* target = static_cast<T*>(task.output.data) + cursor.image * task.output.image +
                    (cursor.row * shape.out_width + cursor.column) * task.output.pixel + group * group_outputs;
        const Real* source = group_results + (pixel - begin) * row_stride;
        int64_t out = 0;
        for (; out + kLanes<Real> <= group_outputs; out += kLanes<Real>) {
          store(load(source + out), target + out);
        }
        for (; out < group_outputs; ++out) {
          from_real(source[out], target + out);
        }
      }
      continue;
    }
    for (int64_t pixel = begin; pixel < end; ++pixel, cursor.advance(shape)) {
      T* target = static_cast<T*>(task.output.data) + cursor.image * task.output.image +
                  (cursor.row * shape.out_width + cursor.column) * task.output.pixel +
                  group * group_outputs * task.output.channel;
      const Real* source = group_results + (pixel - begin) * row_stride;
      for (int64_t out = 0; out < group_outputs; ++out) {
        const Real added = bias == nullptr ? Real(0) : to_real(bias[group * group_outputs + out]);
        from_real(source[out] + added, target + out * task.output.channel);
      }
    }
  }
}

// Pixels of each tile but the last, so that none is much smaller: every tile reads all the weights.
RESNET_CUDA_INLINE int64_t even_tile(int64_t pixels) {
  const int64_t tiles = ceil_div(pixels, kTilePixels);
  return ceil_div(ceil_div(pixels, tiles), kBlockRows) * kBlockRows;
}

template <typename T>
void forward(const ForwardTask& task, int64_t pixel_begin, int64_t pixel_end, void* workspace) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t row_stride = shape.groups * padded_outputs;
  const int64_t group_columns = shape.group_channels() * shape.taps();
  const int64_t panel = panel_for<Real>(shape.group_out_channels());
  Real* results = static_cast<Real*>(workspace);
  Real* columns = results + kTilePixels * row_stride;
  auto* plan = reinterpret_cast<ForwardTap<T>*>(columns + kTilePixels * kSlabColumns);
  const Real* packed = static_cast<const Real*>(task.packed);

  const int64_t tile_pixels = even_tile(pixel_end - pixel_begin);
  for (int64_t begin = pixel_begin; begin < pixel_end; begin += tile_pixels) {
    const int64_t end = smaller(begin + tile_pixels, pixel_end);
    const int64_t pixels = end - begin;
    const int64_t rows = ceil_div(pixels, kBlockRows) * kBlockRows;
    memset(results, 0, sizeof(Real) * rows * row_stride);
    // Rows beyond the last pixel are multiplied too, but not written to the output.
    memset(columns + pixels * kSlabColumns, 0, sizeof(Real) * (rows - pixels) * kSlabColumns);
    int64_t planned_group = -1;
    int64_t planned_tap = -1;
    for (int64_t s = 0; s < task.slab_count; ++s) {
      const Slab& slab = task.slabs[s];
      if (slab.offset_group != planned_group || slab.tap_begin != planned_tap) {
        plan_forward<T>(task, slab, begin, end, plan);
        planned_group = slab.offset_group;
        planned_tap = slab.tap_begin;
      }
      sample_slab<T>(slab, pixels, plan, columns);
      const Real* slab_weights = packed + slab.group * group_columns * padded_outputs + slab.column_begin * panel;
      for (int64_t out = 0; out < padded_outputs; out += panel) {
        for (int64_t row = 0; row < rows; row += kBlockRows) {
          multiply_block<Real>(
              panel,
              slab.columns(),
              columns + row * kSlabColumns,
              kSlabColumns,
              1,
              slab_weights + out * group_columns,
              results + row * row_stride + slab.group * padded_outputs + out,
              row_stride);
        }
      }
    }
    write_tile<T>(task, begin, end, results, row_stride);
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
