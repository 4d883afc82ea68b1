// FrozenBatchNorm + residual + ReLU on a CPU, forward and backward, for one instruction set.
#pragma once

#include "common/vec.h"
#include "common/vec_partial.h"
#include "common/vec_two.h"
#include "frozen_bn/frozen_bn_cpu.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using frozen_bn_cpu::BackwardTask;
using frozen_bn_cpu::ForwardTask;

// Calls visit(first element, count, channel of the first) for pieces of [begin, end) that lie in one plane (contiguous)
// or in one pixel (channels_last).
template <bool kChannelsLast, typename Visit>
RESNET_CUDA_INLINE void
for_each_piece(int64_t channels, int64_t plane, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t piece = kChannelsLast ? channels : plane;
  int64_t within = begin % piece;
  int64_t channel = kChannelsLast ? within : begin / plane % channels;
  for (int64_t position = begin; position < end;) {
    const int64_t count = smaller(piece - within, end - position);
    visit(position, count, channel);
    position += count;
    within = 0;
    channel = kChannelsLast || channel + 1 == channels ? 0 : channel + 1;
  }
}

// Calls compute(i, part) for the vectors of `count` elements, the last of which may be shorter, and hands the results
// to put_two(i, one, next) where there are two whole ones behind the first `head` elements, else to put(i, part, one).
template <typename Real, typename Compute, typename PutTwo, typename Put>
RESNET_CUDA_INLINE void
for_each_vector(int64_t count, int64_t head, const Compute& compute, const PutTwo& put_two, const Put& put) {
  int64_t i = 0;
  for (; i + kLanes<Real> <= head; i += kLanes<Real>) {
    put(i, Whole{}, compute(i, Whole{}));
  }
  if (i < head) {
    put(i, First{head - i}, compute(i, First{head - i}));
    i = head;
  }
#pragma GCC unroll 2
  for (; i + 2 * kLanes<Real> <= count; i += 2 * kLanes<Real>) {
    const Vec<Real> one = compute(i, Whole{});
    put_two(i, one, compute(i + kLanes<Real>, Whole{}));
  }
  if (i + kLanes<Real> <= count) {
    put(i, Whole{}, compute(i, Whole{}));
    i += kLanes<Real>;
  }
  if (i < count) {
    put(i, First{count - i}, compute(i, First{count - i}));
  }
}

// Stores two vectors as for_each_vector hands them over, past the caches where the task says so.
template <typename T>
RESNET_CUDA_INLINE void put_two_at(Vec<RealOf<T>> one, Vec<RealOf<T>> next, T* target, bool stream) {
  stream ? stream_two(one, next, target) : store_two(one, next, target);
}

// Elements to be stored before the double vectors begin at a cache line. Stores past the caches need that; others are
// faster where they do not cross lines, if the row is long enough.
template <typename T>
RESNET_CUDA_INLINE int64_t head_of_row(const T* target, int64_t count, bool stream) {
  return stream || count >= 16 * kLanes<RealOf<T>> ? before_first_line(target, count) : 0;
}

// The constants of a piece's elements: neighbours in memory (channels_last) or the same for all.
template <typename Real, bool kChannelsLast>
struct Constants {
  const Real* first;
  Vec<Real> same;

  template <typename Part>
  RESNET_CUDA_INLINE_MEMBER Vec<Real> at(int64_t i, Part part) const {
    return kChannelsLast ? load_part(first + i, part) : same;
  }
};

template <typename Real, bool kChannelsLast>
RESNET_CUDA_INLINE Constants<Real, kChannelsLast> constants_from(const void* all, int64_t channel) {
  const Real* first = static_cast<const Real*>(all) + channel;
  return {first, kChannelsLast ? Vec<Real>{} : Vec<Real>{} + *first};
}

template <typename T, bool kChannelsLast, bool kResidual, bool kRelu>
void forward_pieces(const ForwardTask& task, int64_t begin, int64_t end) {
  using Real = RealOf<T>;
  const bool stream = task.stream;
  for_each_piece<kChannelsLast>(
      task.channels,
      task.plane,
      begin,
      end,
      [&](int64_t first, int64_t count, int64_t channel) __attribute__((always_inline)) {
        const T* input = static_cast<const T*>(task.input) + first;
        const T* residual = kResidual ? static_cast<const T*>(task.residual) + first : nullptr;
        T* output = static_cast<T*>(task.output) + first;
        const auto scale = constants_from<Real, kChannelsLast>(task.scale, channel);
        const auto shift = constants_from<Real, kChannelsLast>(task.shift, channel);
        for_each_vector<Real>(
            count,
            head_of_row(output, count, stream),
            [&](int64_t i, auto part) __attribute__((always_inline)) {
              Vec<Real> value = scale_and_shift(load_part(input + i, part), scale.at(i, part), shift.at(i, part));
              if (kResidual) {
                value += load_part(residual + i, part);
              }
              return kRelu ? positive_part(value) : value;
            },
            [&](int64_t i, Vec<Real> one, Vec<Real> next)
                __attribute__((always_inline)) { put_two_at(one, next, output + i, stream); },
            [&](int64_t i, auto part, Vec<Real> one)
                __attribute__((always_inline)) { store_part(one, output + i, part); });
      });
}

template <typename T, bool kChannelsLast>
void forward_layout(const ForwardTask& task, int64_t begin, int64_t end) {
  if (task.residual != nullptr) {
    task.relu ? forward_pieces<T, kChannelsLast, true, true>(task, begin, end)
              : forward_pieces<T, kChannelsLast, true, false>(task, begin, end);
  } else {
    task.relu ? forward_pieces<T, kChannelsLast, false, true>(task, begin, end)
              : forward_pieces<T, kChannelsLast, false, false>(task, begin, end);
  }
}

template <typename T>
void forward(const ForwardTask& task, int64_t begin, int64_t end) {
  task.plane == 1 ? forward_layout<T, true>(task, begin, end) : forward_layout<T, false>(task, begin, end);
  if (task.stream) {
    finish_streaming();
  }
}

template <typename T, bool kChannelsLast, bool kRelu, bool kResidual>
void backward_pieces(const BackwardTask& task, int64_t begin, int64_t end) {
  using Real = RealOf<T>;
  const bool stream = task.stream;
  for_each_piece<kChannelsLast>(
      task.channels,
      task.plane,
      begin,
      end,
      [&](int64_t first, int64_t count, int64_t channel) __attribute__((always_inline)) {
        const T* grad = static_cast<const T*>(task.grad) + first;
        const T* output = kRelu ? static_cast<const T*>(task.output) + first : nullptr;
        T* grad_residual = kResidual ? static_cast<T*>(task.grad_residual) + first : nullptr;
        T* grad_input = task.grad_input != nullptr ? static_cast<T*>(task.grad_input) + first : nullptr;
        const auto scale = constants_from<Real, kChannelsLast>(task.scale, channel);
        for_each_vector<Real>(
            count,
            head_of_row(grad_input != nullptr ? grad_input : grad_residual, count, stream),
            [&](int64_t i, auto part) __attribute__((always_inline)) {
              const Vec<Real> value = load_part(grad + i, part);
              return kRelu ? relu_gradient(value, load_part(output + i, part)) : value;
            },
            [&](int64_t i, Vec<Real> one, Vec<Real> next) __attribute__((always_inline)) {
              if (kResidual) {
                put_two_at(one, next, grad_residual + i, stream);
              }
              if (grad_input != nullptr) {
                const Vec<Real> next_scale = scale.at(i + kLanes<Real>, Whole{});
                put_two_at(one * scale.at(i, Whole{}), next * next_scale, grad_input + i, stream);
              }
            },
            [&](int64_t i, auto part, Vec<Real> one) __attribute__((always_inline)) {
              if (kResidual) {
                store_part(one, grad_residual + i, part);
              }
              if (grad_input != nullptr) {
                store_part(one * scale.at(i, part), grad_input + i, part);
              }
            });
      });
}

template <typename T, bool kChannelsLast>
void backward_layout(const BackwardTask& task, int64_t begin, int64_t end) {
  if (task.output != nullptr) {
    task.grad_residual != nullptr ? backward_pieces<T, kChannelsLast, true, true>(task, begin, end)
                                  : backward_pieces<T, kChannelsLast, true, false>(task, begin, end);
  } else {
    task.grad_residual != nullptr ? backward_pieces<T, kChannelsLast, false, true>(task, begin, end)
                                  : backward_pieces<T, kChannelsLast, false, false>(task, begin, end);
  }
}

template <typename T>
void backward(const BackwardTask& task, int64_t begin, int64_t end) {
  task.plane == 1 ? backward_layout<T, true>(task, begin, end) : backward_layout<T, false>(task, begin, end);
  if (task.stream) {
    finish_streaming();
  }
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
