// The two passes of FrozenBatchNorm for N consecutive elements: loads, arithmetic, stores. The channels of the elements
// depend on the layout: cuda_channels_last.cuh, cuda_contiguous.cuh.
#pragma once

#include "common/dispatch.h"
#include "common/pack.cuh"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {

// N consecutive constants, which no kernel writes; `source` is aligned to 16 bytes.
template <int N, typename Real>
RESNET_CUDA_BODY void load_constants(const Real* source, Real (&value)[N]) {
  constexpr int kPiece = N * sizeof(Real) > kPackBytes ? kPackBytes / sizeof(Real) : N;
#pragma unroll
  for (int i = 0; i < N; i += kPiece) {
    const auto piece = load_constant_pack<kPiece>(source + i);
#pragma unroll
    for (int j = 0; j < kPiece; ++j) {
      value[i + j] = piece.element[j];
    }
  }
}

// The residual is a template argument, because its packs take registers; the ReLU is a run-time flag, because it costs
// only a predicate.
//
// Two modes. mean == nullptr: weight, bias are scale, shift. Else: BatchNorm's four buffers.
template <typename T, bool kResidual>
struct FrozenBnForward {
  using Element = T;
  using Real = RealOf<T>;
  static constexpr int kReads = kResidual ? 2 : 1;

  const T* input;
  const Real* weight;
  const Real* bias;
  const Real* mean;      // or null
  const Real* variance;  // null where mean is
  const T* residual;     // null without kResidual
  T* output;             // may alias `input` or `residual`, so none of the three is read through the read-only cache
  Real* scale;           // null, or where to write the scale that is computed from the four buffers
  Real eps;
  bool relu;

  using Constant = ScaleAndShift<Real>;

  RESNET_CUDA_BODY Constant constant(int64_t channel) const {
    const Real given_weight = load_constant_pack<1>(weight + channel).element[0];
    const Real given_bias = load_constant_pack<1>(bias + channel).element[0];
    if (mean == nullptr) {
      return {given_weight, given_bias};
    }
    const Real given_mean = load_constant_pack<1>(mean + channel).element[0];
    const Real given_variance = load_constant_pack<1>(variance + channel).element[0];
    return normalisation_of(given_weight, given_bias, given_mean, given_variance, eps);
  }

  // The constants of N channels from `channel` on, where all arrays are aligned.
  template <int N>
  RESNET_CUDA_BODY void constants(int64_t channel, Constant (&constant)[N]) const {
    Real weights[N], biases[N];
    load_constants(weight + channel, weights);
    load_constants(bias + channel, biases);
    if (mean == nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        constant[i] = {weights[i], biases[i]};
      }
      return;
    }
    Real means[N], variances[N];
    load_constants(mean + channel, means);
    load_constants(variance + channel, variances);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = normalisation_of(weights[i], biases[i], means[i], variances[i], eps);
    }
  }

  // Writes every channel's scale; `threads` threads share the work, this one is number `thread`.
  RESNET_CUDA_BODY void keep_scale(int64_t thread, int64_t threads, int64_t channels) const {
    if (scale != nullptr) {
      for (int64_t channel = thread; channel < channels; channel += threads) {
        scale[channel] = constant(channel).scale;
      }
    }
  }

  template <int N>
  RESNET_CUDA_BODY void read(int64_t begin, PackWord<T, N> (&pack)[kReads]) const {
    pack[0] = load_pack_word<N>(input + begin);
    if constexpr (kResidual) {
      pack[1] = load_pack_word<N>(residual + begin);
    }
  }

  // `constant_of(i)` gives the constant of element begin + i.
  template <int N, typename ConstantOf>
  RESNET_CUDA_BODY void write(int64_t begin, const PackWord<T, N> (&pack)[kReads], const ConstantOf& constant_of)
      const {
    Real value[N], added[N] = {};
    unpack(pack[0].pack(), value);
    if constexpr (kResidual) {
      unpack(pack[1].pack(), added);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Constant constant = constant_of(i);
      value[i] = scale_and_shift(value[i], constant.scale, constant.shift);
      if constexpr (kResidual) {
        value[i] += added[i];
      }
      value[i] = relu ? relu_of(value[i]) : value[i];
    }
    store_pack(output + begin, pack_of<T>(value));
  }
};

// The sum is the scaled and shifted input plus the residual. grad_residual = the sum's gradient, grad_input = the sum's
// gradient times the scale. `kRelu`: the sum's gradient is 0 where the saved output is 0.
template <typename T, bool kRelu>
struct FrozenBnBackward {
  using Element = T;
  using Real = RealOf<T>;
  static constexpr int kReads = kRelu ? 2 : 1;

  const T* grad;
  const Real* scale;
  const T* output;   // null without kRelu
  T* grad_input;     // or null
  T* grad_residual;  // or null

  struct Constant {
    Real scale;
  };

  RESNET_CUDA_BODY Constant constant(int64_t channel) const {
    return {load_constant_pack<1>(scale + channel).element[0]};
  }

  RESNET_CUDA_BODY void keep_scale(int64_t, int64_t, int64_t) const {
  }

  template <int N>
  RESNET_CUDA_BODY void constants(int64_t channel, Constant (&constant)[N]) const {
    Real scales[N];
    load_constants(scale + channel, scales);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = {scales[i]};
    }
  }

  template <int N>
  RESNET_CUDA_BODY void read(int64_t begin, PackWord<T, N> (&pack)[kReads]) const {
    pack[0] = load_pack_word<N>(grad + begin);
    if constexpr (kRelu) {
      pack[1] = load_pack_word<N>(output + begin);
    }
  }

  template <int N, typename ConstantOf>
  RESNET_CUDA_BODY void write(int64_t begin, const PackWord<T, N> (&pack)[kReads], const ConstantOf& constant_of)
      const {
    Real value[N];
    unpack(pack[0].pack(), value);
    if constexpr (kRelu) {
      Real result[N];
      unpack(pack[1].pack(), result);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        value[i] = relu_gradient(value[i], result[i]);
      }
    }
    if (grad_residual != nullptr) {
      store_pack(grad_residual + begin, pack_of<T>(value));
    }
    if (grad_input != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        value[i] *= constant_of(i).scale;
      }
      store_pack(grad_input + begin, pack_of<T>(value));
    }
  }
};

}  // namespace resnet_cuda
