// Forward of the deformable convolution on a CPU, for one element type and one instruction set.
#pragma once

#include "common/gemm_micro.h"
#include "deform_conv/cpu_columns.h"
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

// The im2col rows of one slab: columns[pixel][tap][channel], or pairs of channels.
template <typename T>
RESNET_CUDA_INLINE void sample_slab(const Slab& slab, int64_t pixels, const ForwardTap<T>* plan, ColumnOf<T>* columns) {
  using Column = ColumnOf<T>;
  const int64_t channels = slab.channel_count;
  const int64_t whole = channels / kVectorChannels<Column> * kVectorChannels<Column>;
  // Prefetching pays only where a pixel's channels span several cache lines.
  const bool more_than_a_line = channels * static_cast<int64_t>(sizeof(T)) > kCacheLine;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Column* target = columns + pixel * kSlabColumns;
    const ForwardTap<T>* taps = plan + pixel * slab.tap_count;
    for (int64_t tap = 0; tap < slab.tap_count; ++tap, target += slab.tap_columns) {
      const ForwardTap<T>& planned = taps[tap];
      if (more_than_a_line && pixel + kPrefetchDistance < pixels) {
        prefetch_bottom_corners(taps[kPrefetchDistance * slab.tap_count + tap].corner, slab);
      }
      const T* corner[4];
      for (int i = 0; i < 4; ++i) {
        corner[i] = planned.corner[i] + slab.channel_begin;
      }
      for (int64_t c = 0; c < whole; c += kVectorChannels<Column>) {
        sample_vector(corner, planned.weight, c, FullVector{}, target + c / kColumnChannels<Column>);
      }
      if (whole < channels) {
        const PartialVector rest{channels - whole};
        sample_vector(corner, planned.weight, whole, rest, target + whole / kColumnChannels<Column>);
      }
    }
  }
}

template <typename Real>
RESNET_CUDA_INLINE int64_t padded_group_outputs(const DeformConvShape& shape) {
  const int64_t panel = panel_for<Real>(shape.group_out_channels());
  return ceil_div(shape.group_out_channels(), panel) * panel;
}

// Columns of a tap that are packed together, through a small contiguous block. The strides of the weight's rows and of
// the packed columns are multiples of large powers of 2, so direct copies would suffer conflict misses. The next
// columns are prefetched in software, since no hardware prefetcher follows so many rows.
constexpr int64_t kPackedColumns = 4;

// packed[slab][panel][column][lane]: the weights in the order of the slabs' columns. Packs panels [panel_begin,
// panel_end), counted over all groups.
template <typename T>
void pack_forward(const Task& task, int64_t panel_begin, int64_t panel_end, void* packed) {
  using Real = RealOf<T>;
  using Column = ColumnOf<T>;
  constexpr int64_t kTogether = kColumnChannels<Column>;
  const DeformConvShape& shape = task.shape;
  const int64_t taps = shape.taps();
  const int64_t weight_row = shape.group_channels() * taps;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t panel = panel_for<Real>(group_outputs);
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  // Lanes beyond the last output stay 0.
  Column block[kPackedColumns][kSlabTaps][kBlockVectors * kLanes<Column>];
  for (int64_t index = panel_begin; index < panel_end; ++index) {
    memset(block, 0, sizeof(block));
    const int64_t group = index * panel / padded_outputs;
    const int64_t first_output = index * panel % padded_outputs;
    const int64_t outputs = smaller(panel, group_outputs - first_output);
    const T* rows = static_cast<const T*>(task.weight) + (group * group_outputs + first_output) * weight_row;
    for (int64_t s = 0; s < task.slab_count; ++s) {
      const Slab& slab = task.slabs[s];
      if (slab.group != group) {
        continue;
      }
      Column* target =
          static_cast<Column*>(packed) + slab.column_begin * padded_outputs + first_output * slab.columns();
      const T* first = rows + (slab.channel_begin - group * shape.group_channels()) * taps + slab.tap_begin;
      for (int64_t begin = 0; begin < slab.tap_columns; begin += kPackedColumns) {
        const int64_t columns = smaller(kPackedColumns, slab.tap_columns - begin);
        for (int64_t lane = 0; lane < outputs; ++lane) {
          const T* source = first + lane * weight_row + begin * kTogether * taps;
          prefetch(source + kPackedColumns * kTogether * taps, kPackedColumns * kTogether * taps);
          for (int64_t column = 0; column < columns; ++column, source += kTogether * taps) {
            const int64_t channels = slab.channel_count - (begin + column) * kTogether;
            for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
              put_weights(source + tap, taps, channels, &block[column][tap][lane]);
            }
          }
        }
        for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
          for (int64_t column = 0; column < columns; ++column) {
            Column* row = target + (tap * slab.tap_columns + begin + column) * panel;
            for (int64_t lane = 0; lane < panel; lane += kLanes<Column>) {
              store(load(block[column][tap] + lane), row + lane);
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
  static_assert(sizeof(ColumnOf<T>) == sizeof(Real));
  return static_cast<int64_t>(sizeof(Real)) * kTilePixels *
             (shape.groups * padded_group_outputs<Real>(shape) + kSlabColumns) +
         static_cast<int64_t>(sizeof(ForwardTap<T>)) * kTilePixels * kSlabTaps;
}

// Adds the bias, clamps at 0 where asked, and rounds.
template <typename T>
RESNET_CUDA_INLINE void
write_tile(const ForwardTask& task, int64_t begin, int64_t end, const RealOf<T>* results, int64_t row_stride) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t channel_stride = task.output.channel;
  const T* bias = static_cast<const T*>(task.bias);
  PixelCursor cursor(shape, begin);
  for (int64_t pixel = begin; pixel < end; ++pixel, cursor.advance(shape)) {
    T* first = static_cast<T*>(task.output.data) + cursor.image * task.output.image +
               (cursor.row * shape.out_width + cursor.column) * task.output.pixel;
    const Real* row = results + (pixel - begin) * row_stride;
    for (int64_t group = 0; group < shape.groups; ++group) {
      for (int64_t out = 0; out < group_outputs; out += kLanes<Real>) {
        const int64_t count = smaller(kLanes<Real>, group_outputs - out);
        const int64_t channel = group * group_outputs + out;
        Vec<Real> value = load(row + group * padded_outputs + out);
        if (bias != nullptr) {
          value += load_up_to(bias + channel, count);
        }
        if (task.relu) {
          value = positive_part(value);
        }
        T* target = first + channel * channel_stride;
        if (channel_stride == 1) {
          store_up_to(value, target, count);
        } else {
          T lanes[kLanes<Real>];
          store(value, lanes);
          for (int64_t lane = 0; lane < count; ++lane) {
            target[lane * channel_stride] = lanes[lane];
          }
        }
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
  using Column = ColumnOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t row_stride = shape.groups * padded_outputs;
  const int64_t panel = panel_for<Real>(shape.group_out_channels());
  Real* results = static_cast<Real*>(workspace);
  auto* columns = reinterpret_cast<Column*>(results + kTilePixels * row_stride);
  auto* plan = reinterpret_cast<ForwardTap<T>*>(columns + kTilePixels * kSlabColumns);

  const int64_t tile_pixels = even_tile(pixel_end - pixel_begin);
  for (int64_t begin = pixel_begin; begin < pixel_end; begin += tile_pixels) {
    const int64_t end = smaller(begin + tile_pixels, pixel_end);
    const int64_t pixels = end - begin;
    const int64_t rows = ceil_div(pixels, kBlockRows) * kBlockRows;
    memset(results, 0, sizeof(Real) * rows * row_stride);
    // Rows beyond the last pixel are multiplied too, but not written to the output.
    memset(columns + pixels * kSlabColumns, 0, sizeof(Column) * (rows - pixels) * kSlabColumns);
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
      const Column* slab_weights = static_cast<const Column*>(task.packed) + slab.column_begin * padded_outputs;
      for (int64_t out = 0; out < padded_outputs; out += panel) {
        for (int64_t row = 0; row < rows; row += kBlockRows) {
          multiply_block<Column>(
              panel,
              slab.columns(),
              columns + row * kSlabColumns,
              kSlabColumns,
              1,
              slab_weights + out * slab.columns(),
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
