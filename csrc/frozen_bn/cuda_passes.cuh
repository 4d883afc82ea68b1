// The two passes of FrozenBatchNorm for N consecutive elements: loads, arithmetic, stores. The channels of the elements
// depend on the layout: cuda_channels_last.cuh, cuda_contiguous.cuh.
#pragma once

#include "common/dispatch.h"
#include "common/pack.cuh"
#include "frozen_bn/cuda_grid.h"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {

// N consecutive constants, which no kernel writes; `source` is aligned to 16 bytes, or to N of them where that is less.
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

// Single constants, of any channels.
template <int N, typename Real, typename Index>
RESNET_CUDA_BODY void load_constants_of(const Index (&channel)[N], const Real* source, Real (&value)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    value[i] = load_constant_pack<1>(source + channel[i]).element[0];
  }
}

// What a thread loads before it uses any of it: up to kInFlight packs, a stride apart.
template <typename Pass, int N, int kInFlight>
struct FrozenBnRound {
  PackWord<typename Pass::Element, N> pack[kInFlight][Pass::kReads];

  template <typename Index>
  RESNET_CUDA_BODY void read(const Pass& pass, Index first, Index stride, Index packs) {
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * stride < packs) {
        pass.read(static_cast<int64_t>(first + i * stride) * N, pack[i]);
      }
    }
  }
};

// The residual is a template argument because its packs take registers. The ReLU is a run-time flag because it costs
// only a predicate.
//
// With mean == nullptr, weight and bias are scale and shift; otherwise the arguments are BatchNorm's four buffers.
template <typename T, bool kResidual>
struct FrozenBnForward {
  using Element = T;
  using Real = RealOf<T>;
  static constexpr int kReads = kResidual ? 2 : 1;
  // Channels whose constants are loaded and computed together: fewer where packs of two tensors take registers, too.
  static constexpr int kChannelsAtOnce = kResidual ? 4 : 8;

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

  // The constants of N channels from `channel` on, where all arrays are aligned.
  template <int N, typename Index>
  RESNET_CUDA_BODY void constants(Index channel, Constant (&constant)[N]) const {
    constants_by(constant, [&](const Real* source, auto& value) { load_constants(source + channel, value); });
  }

  template <int N, typename Index>
  RESNET_CUDA_BODY void constants_of(const Index (&channel)[N], Constant (&constant)[N]) const {
    constants_by(constant, [&](const Real* source, auto& value) { load_constants_of(channel, source, value); });
  }

  // Writes every channel's scale; `threads` threads share the work, this one is number `thread`.
  RESNET_CUDA_BODY void keep_scale(int64_t thread, int64_t threads, int64_t channels) const {
    if (scale != nullptr) {
      for (int64_t channel = thread; channel < channels; channel += threads) {
        Constant constant[1];
        constants_of({channel}, constant);
        scale[channel] = constant[0].scale;
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

 private:
  // `load(array, values)` loads from one of the arrays.
  template <int N, typename Load>
  RESNET_CUDA_BODY void constants_by(Constant (&constant)[N], const Load& load) const {
    Real weights[N], biases[N];
    load(weight, weights);
    load(bias, biases);
    if (mean == nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        constant[i] = {weights[i], biases[i]};
      }
      return;
    }
    Real means[N], variances[N];
    load(mean, means);
    load(variance, variances);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = normalisation_of(weights[i], biases[i], means[i], variances[i], eps);
    }
  }
};

// The sum is the scaled and shifted input plus the residual. grad_residual = the sum's gradient, grad_input = the sum's
// gradient times the scale. `kRelu`: the sum's gradient is 0 where the saved output is 0.
template <typename T, bool kRelu>
struct FrozenBnBackward {
  using Element = T;
  using Real = RealOf<T>;
  static constexpr int kReads = kRelu ? 2 : 1;
  static constexpr int kChannelsAtOnce = 8;

  const T* grad;
  const Real* scale;
  const T* output;   // null without kRelu
  T* grad_input;     // or null
  T* grad_residual;  // or null

  struct Constant {
    Real scale;
  };

  RESNET_CUDA_BODY void keep_scale(int64_t, int64_t, int64_t) const {
  }

  template <int N, typename Index>
  RESNET_CUDA_BODY void constants(Index channel, Constant (&constant)[N]) const {
    Real scales[N];
    load_constants(scale + channel, scales);
    set(scales, constant);
  }

  template <int N, typename Index>
  RESNET_CUDA_BODY void constants_of(const Index (&channel)[N], Constant (&constant)[N]) const {
    Real scales[N];
    load_constants_of(channel, scale, scales);
    set(scales, constant);
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

 private:
  template <int N>
  RESNET_CUDA_BODY static void set(const Real (&scales)[N], Constant (&constant)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = {scales[i]};
    }
  }
};

}  // namespace resnet_cuda
