// FrozenBatchNorm + residual + ReLU on a CPU, forward and backward, for one instruction set.
#pragma once

#include "common/element_types.h"
#include "common/vec.h"
#include "common/vec_pair.h"
#include "common/vec_partial.h"
#include "frozen_bn/cpu_relu_gradient.h"
#include "frozen_bn/cpu_traversal.h"
#include "frozen_bn/frozen_bn_cpu.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

using frozen_bn_cpu::BackwardTask;
using frozen_bn_cpu::ConstantsTask;
using frozen_bn_cpu::ForwardTask;

template <typename T>
RESNET_CUDA_INLINE void write_pair(VecPair<RealOf<T>> value, T* target, bool stream) {
  stream ? stream_pair(value, target) : store_pair(value, target);
}

template <typename Value>
struct ForwardConstants {
  Value scale;
  Value shift;
};

template <typename T, bool kResidual, bool kRelu>
struct ForwardPass {
  using Real = RealOf<T>;

  const T* input;
  const T* residual;
  T* output;
  const Real* scale;
  const Real* shift;
  bool stream;

  explicit ForwardPass(const ForwardTask& task)
      : input(static_cast<const T*>(task.input)),
        residual(static_cast<const T*>(task.residual)),
        output(static_cast<T*>(task.output)),
        scale(static_cast<const Real*>(task.scale)),
        shift(static_cast<const Real*>(task.shift)),
        stream(task.stream) {
  }

  RESNET_CUDA_INLINE_MEMBER T* target() const {
    return output;
  }

  template <typename Read>
  RESNET_CUDA_INLINE_MEMBER auto constants(const Read& read) const {
    return ForwardConstants<decltype(read(scale))>{read(scale), read(shift)};
  }

  RESNET_CUDA_INLINE_MEMBER static Vec<Real>
  compute(Vec<Real> value, Vec<Real> scale, Vec<Real> shift, Vec<Real> addend) {
    const Vec<Real> normalized = scale_and_shift(value, scale, shift);
    const Vec<Real> sum = kResidual ? normalized + addend : normalized;
    return kRelu ? positive_part(sum) : sum;
  }

  RESNET_CUDA_INLINE_MEMBER void pair(int64_t i, const ForwardConstants<VecPair<Real>>& constants) const {
    const VecPair<Real> value = load_pair(input + i);
    const VecPair<Real> addend = kResidual ? load_pair(residual + i) : VecPair<Real>{};
    const Vec<Real> first = compute(value.first, constants.scale.first, constants.shift.first, addend.first);
    const Vec<Real> second = compute(value.second, constants.scale.second, constants.shift.second, addend.second);
    write_pair<T>({first, second}, output + i, stream);
  }

  template <typename Extent>
  RESNET_CUDA_INLINE_MEMBER void vector(int64_t i, Extent extent, const ForwardConstants<Vec<Real>>& constants) const {
    const Vec<Real> addend = kResidual ? load(residual + i, extent) : Vec<Real>{};
    store(compute(load(input + i, extent), constants.scale, constants.shift, addend), output + i, extent);
  }
};

template <typename T, bool kRelu, bool kResidual>
struct BackwardPass {
  using Real = RealOf<T>;

  const T* grad;
  const T* output;
  T* grad_input;  // or null
  T* grad_residual;
  const Real* scale;
  bool stream;

  explicit BackwardPass(const BackwardTask& task)
      : grad(static_cast<const T*>(task.grad)),
        output(static_cast<const T*>(task.output)),
        grad_input(static_cast<T*>(task.grad_input)),
        grad_residual(static_cast<T*>(task.grad_residual)),
        scale(static_cast<const Real*>(task.scale)),
        stream(task.stream) {
  }

  RESNET_CUDA_INLINE_MEMBER T* target() const {
    return grad_input != nullptr ? grad_input : grad_residual;
  }

  template <typename Read>
  RESNET_CUDA_INLINE_MEMBER auto constants(const Read& read) const {
    return read(scale);
  }

  RESNET_CUDA_INLINE_MEMBER void pair(int64_t i, const VecPair<Real>& scales) const {
    const VecPair<Real> value = kRelu ? relu_gradient_pair(grad + i, output + i) : load_pair(grad + i);
    if (kResidual) {
      write_pair(value, grad_residual + i, stream);
    }
    if (grad_input != nullptr) {
      write_pair<T>({value.first * scales.first, value.second * scales.second}, grad_input + i, stream);
    }
  }

  template <typename Extent>
  RESNET_CUDA_INLINE_MEMBER void vector(int64_t i, Extent extent, const Vec<Real>& scales) const {
    const Vec<Real> incoming = load(grad + i, extent);
    const Vec<Real> value = kRelu ? relu_gradient(incoming, load(output + i, extent)) : incoming;
    if (kResidual) {
      store(value, grad_residual + i, extent);
    }
    if (grad_input != nullptr) {
      store(value * scales, grad_input + i, extent);
    }
  }
};

template <typename Pass, typename Task>
void run(const Task& task, int64_t begin, int64_t end) {
  const Pass pass(task);
  task.plane == 1 ? traverse_channels_last(pass, task.channels, begin, end)
                  : traverse_contiguous(pass, task.channels, task.plane, begin, end);
  if (task.stream) {
    fence_streaming_stores();
  }
}

template <typename T>
void forward(const ForwardTask& task, int64_t begin, int64_t end) {
  if (task.residual != nullptr) {
    task.relu ? run<ForwardPass<T, true, true>>(task, begin, end) : run<ForwardPass<T, true, false>>(task, begin, end);
  } else {
    task.relu ? run<ForwardPass<T, false, true>>(task, begin, end)
              : run<ForwardPass<T, false, false>>(task, begin, end);
  }
}

template <typename T>
void backward(const BackwardTask& task, int64_t begin, int64_t end) {
  if (task.output != nullptr) {
    task.grad_residual != nullptr ? run<BackwardPass<T, true, true>>(task, begin, end)
                                  : run<BackwardPass<T, true, false>>(task, begin, end);
  } else {
    task.grad_residual != nullptr ? run<BackwardPass<T, false, true>>(task, begin, end)
                                  : run<BackwardPass<T, false, false>>(task, begin, end);
  }
}

template <typename Real>
void constants(const ConstantsTask& task) {
  const auto* weight = static_cast<const Real*>(task.weight);
  const auto* bias = static_cast<const Real*>(task.bias);
  const auto* mean = static_cast<const Real*>(task.mean);
  const auto* variance = static_cast<const Real*>(task.variance);
  const auto eps = static_cast<Real>(task.eps);
  auto* __restrict scale = static_cast<Real*>(task.scale);
  auto* __restrict shift = static_cast<Real*>(task.shift);
  for (int64_t c = 0; c < task.channels; ++c) {
    const auto channel = normalisation_of(weight[c], bias[c], mean[c], variance[c], eps);
    scale[c] = channel.scale;
    shift[c] = channel.shift;
  }
}

template <typename T>
constexpr frozen_bn_cpu::Kernels kKernels = {forward<T>, backward<T>, constants<RealOf<T>>, nullptr};
template <>
constexpr frozen_bn_cpu::Kernels kKernels<BFloat16> =
    {forward<BFloat16>, backward<BFloat16>, constants<float>, deinterleave_constants<BFloat16>};

static inline const frozen_bn_cpu::Kernels* kernels_for(Storage storage) {
  return with_element(storage, [](auto element) { return &kKernels<decltype(element)>; });
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
