// FrozenBatchNorm + residual + ReLU on a CPU, forward and backward, for one instruction set.
#pragma once

#include "common/vec.h"
#include "common/vec_partial.h"
#include "frozen_bn/frozen_bn_cpu.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using frozen_bn_cpu::BackwardTask;
using frozen_bn_cpu::ForwardTask;

// Calls visit(first element, count, constants of one channel or of `count` neighbouring ones) for pieces of [begin,
// end) that lie in one plane (contiguous) or in one pixel (channels_last).
template <typename Visit>
RESNET_CUDA_INLINE void
for_each_piece(int64_t channels, int64_t plane, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t piece = plane == 1 ? channels : plane;
  for (int64_t position = begin; position < end;) {
    const int64_t within = position % piece;
    const int64_t count = smaller(piece - within, end - position);
    visit(position, count, plane == 1 ? within : position / plane % channels);
    position += count;
  }
}

// The constants of the elements of a piece: neighbours in memory (channels_last) or the same for all.
template <typename Real, bool kChannelsLast>
RESNET_CUDA_INLINE Vec<Real> constants(const Real* channel, int64_t index, int64_t count) {
  if (!kChannelsLast) {
    return Vec<Real>{} + *channel;
  }
  return count == kLanes<Real> ? load(channel + index) : load_first(channel + index, count);
}

template <typename T, bool kChannelsLast, bool kResidual, bool kRelu>
RESNET_CUDA_INLINE void forward_pieces(const ForwardTask& task, int64_t begin, int64_t end) {
  using Real = RealOf<T>;
  const T* residual = static_cast<const T*>(task.residual);
  for_each_piece(
      task.channels,
      task.plane,
      begin,
      end,
      [&](int64_t first, int64_t count, int64_t channel) __attribute__((always_inline)) {
        const T* source = static_cast<const T*>(task.input) + first;
        T* target = static_cast<T*>(task.output) + first;
        const Real* scale = static_cast<const Real*>(task.scale) + channel;
        const Real* shift = static_cast<const Real*>(task.shift) + channel;
        const auto compute =
            [&](Vec<Real> value, Vec<Real> added, int64_t i, int64_t n) __attribute__((always_inline)) {
              Vec<Real> result = scale_and_shift(
                  value, constants<Real, kChannelsLast>(scale, i, n), constants<Real, kChannelsLast>(shift, i, n));
              if (kResidual) {
                result += added;
              }
              return kRelu ? relu_of(result) : result;
            };
        int64_t i = 0;
        for (; i + kLanes<Real> <= count; i += kLanes<Real>) {
          const Vec<Real> added = kResidual ? load(residual + first + i) : Vec<Real>{};
          store(compute(load(source + i), added, i, kLanes<Real>), target + i);
        }
        if (i < count) {
          const int64_t rest = count - i;
          const Vec<Real> added = kResidual ? load_first(residual + first + i, rest) : Vec<Real>{};
          store_first(compute(load_first(source + i, rest), added, i, rest), target + i, rest);
        }
      });
}

template <typename T, bool kChannelsLast, bool kResidual>
RESNET_CUDA_INLINE void forward_relu(const ForwardTask& task, int64_t begin, int64_t end) {
  task.relu ? forward_pieces<T, kChannelsLast, kResidual, true>(task, begin, end)
            : forward_pieces<T, kChannelsLast, kResidual, false>(task, begin, end);
}

template <typename T>
void forward(const ForwardTask& task, int64_t begin, int64_t end) {
  const bool channels_last = task.plane == 1;
  if (task.residual != nullptr) {
    channels_last ? forward_relu<T, true, true>(task, begin, end) : forward_relu<T, false, true>(task, begin, end);
  } else {
    channels_last ? forward_relu<T, true, false>(task, begin, end) : forward_relu<T, false, false>(task, begin, end);
  }
}

template <typename T, bool kChannelsLast>
RESNET_CUDA_INLINE void backward_pieces(const BackwardTask& task, int64_t begin, int64_t end) {
  using Real = RealOf<T>;
  const T* output = static_cast<const T*>(task.output);
  T* grad_input = static_cast<T*>(task.grad_input);
  T* grad_residual = static_cast<T*>(task.grad_residual);
  for_each_piece(
      task.channels,
      task.plane,
      begin,
      end,
      [&](int64_t first, int64_t count, int64_t channel) __attribute__((always_inline)) {
        const T* grad = static_cast<const T*>(task.grad) + first;
        const Real* scale = static_cast<const Real*>(task.scale) + channel;
        for (int64_t i = 0; i < count; i += kLanes<Real>) {
          const int64_t n = smaller(kLanes<Real>, count - i);
          const bool whole = n == kLanes<Real>;
          Vec<Real> value = whole ? load(grad + i) : load_first(grad + i, n);
          if (output != nullptr) {
            const T* source = output + first + i;
            value = relu_gradient(value, whole ? load(source) : load_first(source, n));
          }
          if (grad_residual != nullptr) {
            T* target = grad_residual + first + i;
            whole ? store(value, target) : store_first(value, target, n);
          }
          if (grad_input != nullptr) {
            const Vec<Real> scaled = value * constants<Real, kChannelsLast>(scale, i, n);
            T* target = grad_input + first + i;
            whole ? store(scaled, target) : store_first(scaled, target, n);
          }
        }
      });
}

template <typename T>
void backward(const BackwardTask& task, int64_t begin, int64_t end) {
  task.plane == 1 ? backward_pieces<T, true>(task, begin, end) : backward_pieces<T, false>(task, begin, end);
}

template <typename T>
constexpr frozen_bn_cpu::Kernels kKernels = {forward<T>, backward<T>};

static inline const frozen_bn_cpu::Kernels& kernels_for(Storage storage) {
  switch (storage) {
    case Storage::kDouble:
      return kKernels<double>;
    case Storage::kHalf:
      return kKernels<Half16>;
    case Storage::kBFloat16:
      return kKernels<BFloat16>;
    default:
      return kKernels<float>;
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
