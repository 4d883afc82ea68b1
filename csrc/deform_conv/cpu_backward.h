// Backward of the deformable convolution on a CPU, for one element type and one instruction set.
//
// Nothing is kept from the forward: the input is sampled again. A thread owns slices of channels, so it scatters into
// the gradient of the input without atomics, always in the order of the pixels.
#pragma once

#include "common/gemm_micro.h"
#include "deform_conv/cpu_forward.h"
#include "deform_conv/cpu_sampling.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using deform_conv_cpu::BackwardTask;
using deform_conv_cpu::kBandPixels;

template <typename T>
struct BackwardTap {
  TapSample<RealOf<T>> sample;
  RealOf<T> mask;
  const T* corner[4];         // zeros for a corner outside the image
  RealOf<T>* grad_corner[4];  // a scratch row for a corner outside the image
  RealOf<T> corner_weight[4];
};

// Lanes of a panel of a slab's columns in the product grad * weight.
template <typename Real>
constexpr int64_t kColumnPanel = kBlockVectors * kLanes<Real>;

// packed[panel of the slab's columns][output channel of the group][lane], for the product grad * weight.
template <typename T>
void pack_backward(const Task& task, int64_t slab_begin, int64_t slab_end, void* packed) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const T* weight = static_cast<const T*>(task.weight);
  const int64_t taps = shape.taps();
  const int64_t group_columns = shape.group_channels() * taps;
  const int64_t group_outputs = shape.group_out_channels();
  for (int64_t s = slab_begin; s < slab_end; ++s) {
    const Slab& slab = task.slabs[s];
    Real* target = static_cast<Real*>(packed) + slab.padded_begin * group_outputs;
    const int64_t first_channel = slab.channel_begin - slab.group * shape.group_channels();
    for (int64_t out = 0; out < group_outputs; ++out) {
      const T* row =
          weight + (slab.group * group_outputs + out) * group_columns + first_channel * taps + slab.tap_begin;
      Real* panel = target + out * kColumnPanel<Real>;
      int64_t lane = 0;
      for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
        for (int64_t c = 0; c < slab.channel_count; ++c) {
          if (lane == kColumnPanel<Real>) {
            lane = 0;
            panel += kColumnPanel<Real> * group_outputs;
          }
          panel[lane++] = to_real(row[c * taps + tap]);
        }
      }
      for (; lane < kColumnPanel<Real>; ++lane) {
        panel[lane] = Real(0);
      }
    }
  }
}

// What one tap of one pixel gives: its gradients for y, x and mask, summed over channels a vector apart.
template <typename Real>
struct PositionGradient {
  Vec<Real> y, x, mask;
};

// Workspace: the tile's columns [kTilePixels][kSlabColumns], a scratch row, the plan and the gradients for its
// positions.
template <typename T>
int64_t backward_workspace(const DeformConvShape& shape) {
  using Real = RealOf<T>;
  const int64_t scratch_row = ceil_div(shape.channels, 64) * 64;
  return static_cast<int64_t>(sizeof(Real)) * (kTilePixels * kSlabColumns + scratch_row) +
         static_cast<int64_t>(sizeof(PositionGradient<Real>) + sizeof(BackwardTap<T>)) * kTilePixels * kSlabTaps;
}

// The band's gradients as rows [pixel][O] and as panels [group][panel][pixel][lane].
template <typename T>
void backward_rows(const BackwardTask& task, int64_t begin, int64_t end) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t padded_outputs = padded_group_outputs<Real>(shape);
  const int64_t panel = panel_for<Real>(group_outputs);
  Real* rows = static_cast<Real*>(task.grad_rows);
  Real* panels = static_cast<Real*>(task.grad_panels);
  PixelCursor cursor(shape, task.band_begin + begin);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const bool exists = pixel < task.band_count;
    const T* source = static_cast<const T*>(task.grad.data);
    if (exists) {
      source += cursor.image * task.grad.image + (cursor.row * shape.out_width + cursor.column) * task.grad.pixel;
      cursor.advance(shape);
    }
    for (int64_t group = 0; group < shape.groups; ++group) {
      Real* row = rows + pixel * shape.out_channels + group * group_outputs;
      for (int64_t first = 0; first < padded_outputs; first += panel) {
        Real* panel_row = panels + (group * padded_outputs + first) * kBandPixels + pixel * panel;
        for (int64_t out = first; out < first + panel; ++out) {
          // Pixels beyond the band's end and padding are zero: the register blocks read them.
          const bool real = exists && out < group_outputs;
          const Real value = real ? to_real(source[(group * group_outputs + out) * task.grad.channel]) : Real(0);
          panel_row[out - first] = value;
          if (out < group_outputs) {
            row[out] = value;
          }
        }
      }
    }
  }
}

template <typename T>
RESNET_CUDA_INLINE void plan_backward(
    const BackwardTask& task,
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
  const int64_t tap_count = slab.tap_count;
  for_each_tap<Real>(
      task,
      slab.offset_group,
      slab.tap_begin,
      tap_count,
      begin,
      end,
      [&](int64_t pixel, int64_t tap, const PlannedTap<Real>& planned) __attribute__((always_inline)) {
        BackwardTap<T>& target = plan[pixel * tap_count + tap];
        target.sample = planned.sample;
        target.mask = planned.mask;
        const bool inside = planned.sample.kind == TapKind::kInside;
        for (int i = 0; i < 4; ++i) {
          const int64_t corner = planned.sample.corner[i];
          const int64_t element = planned.image_begin + corner * channels;
          target.corner[i] = corner >= 0 ? input + element : zeros;
          target.grad_corner[i] = inside && corner >= 0 && grad_input != nullptr ? grad_input + element : scratch;
          target.corner_weight[i] = inside ? planned.sample.corner_weight(i) : Real(0);
        }
      });
}

// One vector of channels: reads the gradient of the columns in `column`, leaves the column itself there.
template <typename T, bool kScatter>
RESNET_CUDA_INLINE void visit_channels(
    const BackwardTap<T>& planned,
    const Vec<RealOf<T>> (&value)[4],
    Vec<RealOf<T>>& column,
    Vec<RealOf<T>> (&grad_value)[4],
    PositionGradient<RealOf<T>>& gradient) {
  using Real = RealOf<T>;
  const Vec<Real> grad = column;
  const TapSample<Real>& sample = planned.sample;
  Vec<Real> sampled = planned.corner_weight[0] * value[0] + planned.corner_weight[1] * value[1] +
                      planned.corner_weight[2] * value[2] + planned.corner_weight[3] * value[3];
  if (sample.kind != TapKind::kInside) {
    // Exactly 0 at the border, whatever the pixels beside it are.
    sampled = Vec<Real>{} + (sample.kind == TapKind::kNan ? not_a_number<Real>() : Real(0));
  }
  gradient.mask += grad * sampled;
  const Vec<Real> masked = grad * planned.mask;
  gradient.y += masked * slope_y(sample, value);
  gradient.x += masked * slope_x(sample, value);
  if (kScatter) {
    for (int i = 0; i < 4; ++i) {
      grad_value[i] += planned.corner_weight[i] * masked;
    }
  }
  column = sampled * planned.mask;
}

// Turns the gradients of one slab's columns into the columns themselves, and adds to the other gradients on the way.
template <typename T, bool kScatter>
RESNET_CUDA_INLINE void visit_slab(
    const Slab& slab,
    int64_t pixels,
    const BackwardTap<T>* plan,
    PositionGradient<RealOf<T>>* positions,
    RealOf<T>* columns) {
  using Real = RealOf<T>;
  const int64_t channels = slab.channel_count;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Real* column = columns + pixel * kSlabColumns;
    for (int64_t tap = 0; tap < slab.tap_count; ++tap, column += channels) {
      const BackwardTap<T>& planned = plan[pixel * slab.tap_count + tap];
      PositionGradient<Real> gradient = positions[pixel * slab.tap_count + tap];
      for (int64_t c = 0; c < channels; c += kLanes<Real>) {
        const int64_t count = smaller(kLanes<Real>, channels - c);
        const bool whole = count == kLanes<Real>;
        const int64_t channel = slab.channel_begin + c;
        Vec<Real> value[4];
        Vec<Real> grad_value[4];
        Vec<Real> vector = whole ? load(column + c) : load_first(column + c, count);
        for (int i = 0; i < 4; ++i) {
          const T* corner = planned.corner[i] + channel;
          value[i] = whole ? load(corner) : load_first(corner, count);
        }
        if (kScatter) {
          for (int i = 0; i < 4; ++i) {
            Real* corner = planned.grad_corner[i] + channel;
            grad_value[i] = whole ? load(corner) : load_first(corner, count);
          }
        }
        visit_channels<T, kScatter>(planned, value, vector, grad_value, gradient);
        if (kScatter) {
          for (int i = 0; i < 4; ++i) {
            Real* corner = planned.grad_corner[i] + channel;
            whole ? store(grad_value[i], corner) : store_first(grad_value[i], corner, count);
          }
        }
        whole ? store(vector, column + c) : store_first(vector, column + c, count);
      }
      positions[pixel * slab.tap_count + tap] = gradient;
    }
  }
}

// Adds what a run of slabs with the same plan gave to the range's sums for its offset group.
template <typename T>
RESNET_CUDA_INLINE void flush_positions(
    const BackwardTask& task,
    int64_t range,
    const Slab& slab,
    int64_t first_pixel_of_band,
    int64_t pixels,
    const BackwardTap<T>* plan,
    const PositionGradient<RealOf<T>>* positions) {
  using Real = RealOf<T>;
  const int64_t taps = task.shape.taps();
  Real* sums = static_cast<Real*>(task.grad_position) +
               ((range * task.shape.offset_groups + slab.offset_group) * kBandPixels + first_pixel_of_band) * taps * 3;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Real* target = sums + (pixel * taps + slab.tap_begin) * 3;
    for (int64_t tap = 0; tap < slab.tap_count; ++tap, target += 3) {
      const int64_t index = pixel * slab.tap_count + tap;
      const bool is_nan = plan[index].sample.kind == TapKind::kNan;
      target[0] += is_nan ? not_a_number<Real>() : sum_of_lanes<Real>(positions[index].y);
      target[1] += is_nan ? not_a_number<Real>() : sum_of_lanes<Real>(positions[index].x);
      target[2] += sum_of_lanes<Real>(positions[index].mask);
    }
  }
}

// grad_columns = grad * weight, for the slab's columns of the tile that begins `begin` pixels into the band.
template <typename Real>
RESNET_CUDA_INLINE void
multiply_by_weight(const BackwardTask& task, const Slab& slab, int64_t begin, int64_t tile_rows, Real* columns) {
  const DeformConvShape& shape = task.shape;
  const int64_t group_outputs = shape.group_out_channels();
  const Real* rows = static_cast<const Real*>(task.grad_rows) + begin * shape.out_channels + slab.group * group_outputs;
  const Real* packed = static_cast<const Real*>(task.packed) + slab.padded_begin * group_outputs;
  for (int64_t column = 0; column < slab.columns(); column += kColumnPanel<Real>) {
    for (int64_t row = 0; row < tile_rows; row += kBlockRows) {
      multiply_block<Real>(
          kColumnPanel<Real>,
          group_outputs,
          rows + row * shape.out_channels,
          shape.out_channels,
          1,
          packed + column * group_outputs,
          columns + row * kSlabColumns + column,
          kSlabColumns);
    }
  }
}

// grad_weight += columns^T * grad, for the slab's columns of the tile.
template <typename Real>
RESNET_CUDA_INLINE void
add_weight_gradient(const BackwardTask& task, const Slab& slab, int64_t begin, int64_t pixels, const Real* columns) {
  const int64_t padded_outputs = padded_group_outputs<Real>(task.shape);
  const int64_t panel = panel_for<Real>(task.shape.group_out_channels());
  Real* target = static_cast<Real*>(task.grad_weight) + slab.padded_begin * padded_outputs;
  for (int64_t out = 0; out < padded_outputs; out += panel) {
    const Real* grads =
        static_cast<const Real*>(task.grad_panels) + (slab.group * padded_outputs + out) * kBandPixels + begin * panel;
    for (int64_t column = 0; column < slab.columns(); column += kBlockRows) {
      multiply_block<Real>(
          panel,
          pixels,
          columns + column,
          1,
          kSlabColumns,
          grads,
          target + column * padded_outputs + out,
          padded_outputs);
    }
  }
}

// The part of the band that concerns the slabs of slices [slice_begin, slice_end), which are the range `range`.
template <typename T>
void backward(const BackwardTask& task, int64_t range, int64_t slice_begin, int64_t slice_end, void* workspace) {
  using Real = RealOf<T>;
  const DeformConvShape& shape = task.shape;
  const int64_t scratch_row = ceil_div(shape.channels, 64) * 64;
  auto* positions = static_cast<PositionGradient<Real>*>(workspace);
  Real* columns = reinterpret_cast<Real*>(positions + kTilePixels * kSlabTaps);
  Real* scratch = columns + kTilePixels * kSlabColumns;
  auto* plan = reinterpret_cast<BackwardTap<T>*>(scratch + scratch_row);
  memset(scratch, 0, sizeof(Real) * scratch_row);
  const bool needs_grad_columns = task.grad_input != nullptr || task.grad_position != nullptr;

  const int64_t most_pixels = even_tile(task.band_count);
  for (int64_t begin = 0; begin < task.band_count; begin += most_pixels) {
    const int64_t first = task.band_begin + begin;
    const int64_t pixels = smaller(most_pixels, task.band_count - begin);
    const int64_t tile_rows = ceil_div(pixels, kBlockRows) * kBlockRows;
    const Slab* planned = nullptr;
    const auto finish_run = [&]() __attribute__((always_inline)) {
      if (planned != nullptr && task.grad_position != nullptr) {
        flush_positions<T>(task, range, *planned, begin, pixels, plan, positions);
      }
    };
    for (int64_t s = 0; s < task.slab_count; ++s) {
      const Slab& slab = task.slabs[s];
      if (slab.slice < slice_begin || slab.slice >= slice_end) {
        continue;
      }
      if (planned == nullptr || slab.offset_group != planned->offset_group || slab.tap_begin != planned->tap_begin) {
        finish_run();
        plan_backward<T>(task, slab, first, first + pixels, scratch, plan);
        memset(positions, 0, sizeof(PositionGradient<Real>) * pixels * slab.tap_count);
        planned = &slab;
      }
      memset(columns, 0, sizeof(Real) * tile_rows * kSlabColumns);
      if (needs_grad_columns) {
        multiply_by_weight<Real>(task, slab, begin, tile_rows, columns);
      }
      if (task.grad_input != nullptr) {
        visit_slab<T, true>(slab, pixels, plan, positions, columns);
      } else {
        visit_slab<T, false>(slab, pixels, plan, positions, columns);
      }
      if (task.grad_weight != nullptr) {
        add_weight_gradient<Real>(task, slab, begin, pixels, columns);
      }
    }
    finish_run();
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
