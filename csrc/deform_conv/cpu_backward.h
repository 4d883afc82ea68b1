// Backward of the deformable convolution on a CPU, for one element type and one instruction set.
//
// The forward does not save the columns: they are sampled again. A thread owns slices of channels, so col2im (adding
// the columns' gradient to the input's) needs no atomics and always adds in the order of the pixels.
#pragma once

#include "common/gemm_micro.h"
#include "deform_conv/cpu_forward.h"
#include "deform_conv/cpu_sampling.h"
#include "deform_conv/cpu_tile_gradients.h"
#include "deform_conv/input_gradient_blocks.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::gradient_block_element_of;
using deform_conv_cpu::kBandPixels;
using deform_conv_cpu::ThreadChannels;

// The backward's plan of a tap.
template <typename T>
struct BackwardTap {
  RealOf<T> fraction_y, fraction_x;
  RealOf<T> mask;
  TapKind kind;
  const T* corner[4];         // zeros for a corner outside the image
  RealOf<T>* grad_corner[4];  // a scratch row for a corner outside the image
  RealOf<T> corner_weight[4];
};

// Lanes of a panel of columns in the product grad * weight.
template <typename Real>
constexpr int64_t kColumnPanel = kBlockVectors * kLanes<Real>;
static_assert(kSlabColumns % kColumnPanel<float> == 0 && deform_conv_cpu::kColumnPadding % kColumnPanel<float> == 0);
static_assert(kSlabColumns % kBlockRows == 0 && deform_conv_cpu::kColumnPadding % kBlockRows == 0);

// Rows of the weights of a group, for the product grad * weight: output channels, or pairs of them.
template <typename T>
RESNET_CUDA_INLINE int64_t output_depth(const DeformConvShape& shape) {
  return ceil_div(shape.group_out_channels(), kColumnChannels<ColumnOf<T>>);
}

// packed[panel of the slab's columns][output channel of the group, or pair of them][lane], for the product grad *
// weight.
template <typename T>
void pack_backward(const Task& task, int64_t slab_begin, int64_t slab_end, void* packed) {
  using Real = RealOf<T>;
  using Element = ColumnOf<T>;
  constexpr int64_t kTogether = kColumnChannels<Element>;
  const DeformConvShape& shape = task.shape;
  const T* weight = static_cast<const T*>(task.weight);
  const int64_t taps = shape.taps();
  const int64_t group_columns = shape.group_channels() * taps;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t depth = output_depth<T>(shape);
  for (int64_t s = slab_begin; s < slab_end; ++s) {
    const Slab& slab = task.slabs[s];
    Element* target = static_cast<Element*>(packed) + slab.padded_begin * depth;
    const int64_t first_channel = slab.channel_begin - slab.group * shape.group_channels();
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t out = k * kTogether;
      const T* row =
          weight + (slab.group * group_outputs + out) * group_columns + first_channel * taps + slab.tap_begin;
      Element* panel = target + k * kColumnPanel<Real>;
      int64_t lane = 0;
      for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
        for (int64_t c = 0; c < slab.channel_count; ++c) {
          if (lane == kColumnPanel<Real>) {
            lane = 0;
            panel += kColumnPanel<Real> * depth;
          }
          put_weights(row + c * taps + tap, group_columns, group_outputs - out, panel + lane++);
        }
      }
      for (; lane < kColumnPanel<Real>; ++lane) {
        panel[lane] = Element{};
      }
    }
  }
}

// A tap's gradients for y, x and mask: lane by lane the sums over every kLanes-th channel.
template <typename Real>
struct PositionGradient {
  Vec<Real> y, x, mask;
};

// A thread's scratch memory.
template <typename T>
struct BackwardWorkspace {
  using Real = RealOf<T>;

  Real* columns;  // [kTilePixels][kSlabColumns]
  Real* scratch;  // [C], receives the gradients of corners outside the image
  TileGradients<Real> gradients;
  BackwardTap<T>* plan;

  BackwardWorkspace(const DeformConvShape& shape, void* memory) {
    columns = static_cast<Real*>(memory);
    scratch = columns + kTilePixels * kSlabColumns;
    gradients.rows = scratch + scratch_elements(shape);
    gradients.panels = gradients.rows + TileGradients<Real>::row_elements(shape);
    plan = reinterpret_cast<BackwardTap<T>*>(gradients.panels + TileGradients<Real>::panel_elements(shape));
  }

  static int64_t scratch_elements(const DeformConvShape& shape) {
    return ceil_div(shape.channels, 64) * 64;
  }

  static int64_t bytes(const DeformConvShape& shape) {
    const int64_t elements = kTilePixels * kSlabColumns + scratch_elements(shape) +
                             TileGradients<Real>::row_elements(shape) + TileGradients<Real>::panel_elements(shape);
    return elements * static_cast<int64_t>(sizeof(Real)) +
           static_cast<int64_t>(sizeof(BackwardTap<T>)) * kTilePixels * kSlabTaps;
  }
};

template <typename T>
int64_t backward_workspace(const DeformConvShape& shape) {
  return BackwardWorkspace<T>::bytes(shape);
}

template <typename T>
RESNET_CUDA_INLINE void plan_backward(
    const BackwardTask& task,
    const ThreadChannels& range,
    const Slab& slab,
    int64_t begin,
    int64_t end,
    RealOf<T>* scratch,
    BackwardTap<T>* plan) {
  using Real = RealOf<T>;
  const T* input = static_cast<const T*>(task.input);
  const T* zeros = static_cast<const T*>(task.zeros);
  Real* grad_input = static_cast<Real*>(task.grad_input);
  const int64_t channels = task.shape.channels;
  const int64_t input_pixels = task.shape.batch * task.shape.height * task.shape.width;
  const FourCorners pixel_steps = corner_steps(task.shape);
  const FourCorners element_steps = pixel_steps * channels;
  const FourCorners address_of_zeros = FourCorners{} + reinterpret_cast<intptr_t>(zeros);
  const FourCorners address_of_scratch = FourCorners{} + reinterpret_cast<intptr_t>(scratch);
  const int64_t tap_count = slab.tap_count;
  for_each_tap<Real>(task, slab, begin, end, [&](const TapVector<Real>& taps) __attribute__((always_inline)) {
    const SampleVector<Real>& sample = taps.sample;
    const auto inside = sample.is(TapKind::kInside);
    Vec<Real> weight[4];
    for (int i = 0; i < 4; ++i) {
      weight[i] = inside ? sample.corner_weight(i) : Vec<Real>{};
    }
    for (int64_t lane = 0; lane < taps.count; ++lane) {
      BackwardTap<T>& target = plan[(taps.pixel + lane) * tap_count + taps.tap];
      target.fraction_y = sample.fraction_y[lane];
      target.fraction_x = sample.fraction_x[lane];
      target.mask = taps.mask[lane];
      target.kind = static_cast<TapKind>(sample.kind[lane]);
      const int64_t first = taps.first_corner(task.shape, lane);
      const FourCorners element = first * channels + element_steps;
      const FourCorners exists = corners_of(sample.corners[lane]);
      store_addresses(exists ? addresses_of(input, element) : address_of_zeros, target.corner);
      const FourCorners adds = corners_of(grad_input == nullptr ? 0 : sample.corners[lane] & inside[lane]);
      const FourCorners grad_element =
          gradient_block_element_of(first + pixel_steps, element, input_pixels, channels, range);
      store_addresses(adds ? addresses_of(grad_input, grad_element) : address_of_scratch, target.grad_corner);
      store_lane<Real>(weight, lane, target.corner_weight);
    }
  });
}

// One vector of channels of a tap. From the corners' values and the column's gradient: adds to the gradients of the
// corners and of the position, and returns the column.
template <typename T, bool kScatter>
RESNET_CUDA_INLINE Vec<RealOf<T>> visit_channels(
    const BackwardTap<T>& planned,
    const Vec<RealOf<T>> (&value)[4],
    const Vec<RealOf<T>>& grad_column,
    Vec<RealOf<T>> (&grad_value)[4],
    PositionGradient<RealOf<T>>& gradient) {
  using Real = RealOf<T>;
  Vec<Real> sampled = planned.corner_weight[0] * value[0] + planned.corner_weight[1] * value[1] +
                      planned.corner_weight[2] * value[2] + planned.corner_weight[3] * value[3];
  if (planned.kind != TapKind::kInside) {
    // Exactly 0 at the border, even beside an infinite pixel.
    sampled = Vec<Real>{} + (planned.kind == TapKind::kNan ? not_a_number<Real>() : Real(0));
  }
  gradient.mask += grad_column * sampled;
  const Vec<Real> masked = grad_column * planned.mask;
  gradient.y += masked * slope_y(planned, value);
  gradient.x += masked * slope_x(planned, value);
  if (kScatter) {
    for (int i = 0; i < 4; ++i) {
      grad_value[i] += planned.corner_weight[i] * masked;
    }
  }
  return sampled * planned.mask;
}

// workspace.columns: in: the gradient of one slab's columns; out: the columns. Adds to the input's gradient (kScatter:
// col2im) and, unless null, to sums: [pixel][tap][y, x, mask] of this thread, for the slab's offset group, from the
// tile's first pixel on.
template <typename T, bool kScatter>
RESNET_CUDA_INLINE void visit_slab(
    const DeformConvShape& shape,
    const Slab& slab,
    int64_t pixels,
    const BackwardWorkspace<T>& workspace,
    RealOf<T>* sums) {
  using Real = RealOf<T>;
  const int64_t channels = slab.channel_count;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Real* column = workspace.columns + pixel * kSlabColumns;
    for (int64_t tap = 0; tap < slab.tap_count; ++tap, column += channels) {
      const BackwardTap<T>& planned = workspace.plan[pixel * slab.tap_count + tap];
      if (pixel + kPrefetchDistance < pixels) {
        const BackwardTap<T>& ahead = workspace.plan[(pixel + kPrefetchDistance) * slab.tap_count + tap];
        prefetch_bottom_corners(ahead.corner, slab);
        if (kScatter) {
          prefetch_bottom_corners(ahead.grad_corner, slab);
        }
      }
      PositionGradient<Real> gradient{};
      for (int64_t c = 0; c < channels; c += kLanes<Real>) {
        const int64_t count = smaller(kLanes<Real>, channels - c);
        const int64_t channel = slab.channel_begin + c;
        Vec<Real> value[4];
        Vec<Real> grad_value[4];
        for (int i = 0; i < 4; ++i) {
          value[i] = load_up_to(planned.corner[i] + channel, count);
        }
        if (kScatter) {
          for (int i = 0; i < 4; ++i) {
            grad_value[i] = load_up_to(planned.grad_corner[i] + channel, count);
          }
        }
        const Vec<Real> grad_column = load_up_to(column + c, count);
        const Vec<Real> sampled = visit_channels<T, kScatter>(planned, value, grad_column, grad_value, gradient);
        if (kScatter) {
          for (int i = 0; i < 4; ++i) {
            store_up_to(grad_value[i], planned.grad_corner[i] + channel, count);
          }
        }
        store_up_to(sampled, column + c, count);
      }
      if (sums != nullptr) {
        Real* target = sums + (pixel * shape.taps() + slab.tap_begin + tap) * 3;
        const bool is_nan = planned.kind == TapKind::kNan;
        target[0] += is_nan ? not_a_number<Real>() : sum_of_lanes<Real>(gradient.y);
        target[1] += is_nan ? not_a_number<Real>() : sum_of_lanes<Real>(gradient.x);
        target[2] += sum_of_lanes<Real>(gradient.mask);
      }
    }
  }
}

// grad_columns = grad * weight, for the slab's columns of the tile.
template <typename T>
RESNET_CUDA_INLINE void multiply_by_weight(
    const BackwardTask& task,
    const Slab& slab,
    const TileGradients<RealOf<T>>& gradients,
    int64_t tile_rows,
    RealOf<T>* columns) {
  using Real = RealOf<T>;
  using Element = ColumnOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t depth = output_depth<T>(shape);
  const auto* rows = reinterpret_cast<const Element*>(gradients.rows) + slab.group * shape.group_out_channels();
  const Element* packed = static_cast<const Element*>(task.packed) + slab.padded_begin * depth;
  for (int64_t column = 0; column < slab.columns(); column += kColumnPanel<Real>) {
    for (int64_t row = 0; row < tile_rows; row += kBlockRows) {
      multiply_block<Element, Product::kStored>(
          kColumnPanel<Real>,
          depth,
          rows + row * shape.out_channels,
          shape.out_channels,
          1,
          packed + column * depth,
          columns + row * kSlabColumns + column,
          kSlabColumns);
    }
  }
}

// grad_weight += columns^T * grad, for the slab's columns of the tile. Overwrites the columns.
template <typename T>
RESNET_CUDA_INLINE void add_weight_gradient(
    const BackwardTask& task,
    const Slab& slab,
    const TileGradients<RealOf<T>>& gradients,
    int64_t pixels,
    RealOf<T>* columns) {
  using Real = RealOf<T>;
  using Element = ColumnOf<T>;
  const int64_t padded_outputs = padded_group_outputs<Real>(task.shape);
  const int64_t panel = panel_for<Real>(task.shape.group_out_channels());
  pair_rows<Element>(columns, pixels, kSlabColumns, slab.columns());
  Real* target = static_cast<Real*>(task.grad_weight) + slab.padded_begin * padded_outputs;
  for (int64_t out = 0; out < padded_outputs; out += panel) {
    for (int64_t column = 0; column < slab.columns(); column += kBlockRows) {
      multiply_block<Element>(
          panel,
          ceil_div(pixels, kColumnChannels<Element>),
          reinterpret_cast<const Element*>(columns) + column,
          1,
          kSlabColumns,
          reinterpret_cast<const Element*>(gradients.panels) + (slab.group * padded_outputs + out) * kTilePixels,
          target + column * padded_outputs + out,
          padded_outputs);
    }
  }
}

// Zeroes a range's position gradients of the band.
template <typename Real>
RESNET_CUDA_INLINE void clear_positions(const BackwardTask& task, int64_t range) {
  const ThreadChannels& own = task.ranges[range];
  const int64_t group_elements = kBandPixels * task.shape.taps() * 3;
  Real* sums = static_cast<Real*>(task.grad_position) +
               (range * task.shape.offset_groups + own.offset_group_begin) * group_elements;
  memset(sums, 0, sizeof(Real) * (own.offset_group_end - own.offset_group_begin) * group_elements);
}

template <typename T>
void backward(const BackwardTask& task, int64_t range, void* memory) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const BackwardWorkspace<T> workspace(shape, memory);
  const TileGradients<Real>& gradients = workspace.gradients;
  const ThreadChannels& own = task.ranges[range];
  memset(workspace.scratch, 0, sizeof(Real) * BackwardWorkspace<T>::scratch_elements(shape));
  // visit_slab reads the columns' gradient even where it is not needed, so not computed.
  memset(workspace.columns, 0, sizeof(Real) * kTilePixels * kSlabColumns);
  if (task.grad_position != nullptr) {
    clear_positions<Real>(task, range);
  }

  const int64_t most_pixels = even_tile(task.band_count);
  for (int64_t begin = 0; begin < task.band_count; begin += most_pixels) {
    const int64_t first = task.band_begin + begin;
    const int64_t pixels = smaller(most_pixels, task.band_count - begin);
    const int64_t tile_rows = ceil_div(pixels, kBlockRows) * kBlockRows;
    pack_gradients<T>(task, first, pixels, tile_rows, gradients);
    if (task.grad_bias != nullptr) {
      add_bias_gradient<Real>(task, range, pixels, gradients);
    }
    pair_gradients<ColumnOf<T>>(shape, pixels, tile_rows, gradients);
    const Slab* planned = nullptr;
    for (int64_t s = 0; s < task.slab_count; ++s) {
      const Slab& slab = task.slabs[s];
      if (slab.slice < own.slice_begin || slab.slice >= own.slice_end) {
        continue;
      }
      if (planned == nullptr || slab.offset_group != planned->offset_group || slab.tap_begin != planned->tap_begin) {
        plan_backward<T>(task, own, slab, first, first + pixels, workspace.scratch, workspace.plan);
        planned = &slab;
      }
      Real* sums = nullptr;
      if (task.grad_position != nullptr) {
        sums = static_cast<Real*>(task.grad_position) +
               ((range * shape.offset_groups + slab.offset_group) * kBandPixels + begin) * shape.taps() * 3;
      }
      if (task.grad_input != nullptr || sums != nullptr) {
        multiply_by_weight<T>(task, slab, gradients, tile_rows, workspace.columns);
      }
      if (task.grad_input != nullptr) {
        visit_slab<T, true>(shape, slab, pixels, workspace, sums);
      } else {
        visit_slab<T, false>(shape, slab, pixels, workspace, sums);
      }
      if (task.grad_weight != nullptr) {
        add_weight_gradient<T>(task, slab, gradients, pixels, workspace.columns);
      }
    }
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
