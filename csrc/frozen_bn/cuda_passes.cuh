// What the two passes of FrozenBatchNorm read, compute and write for N neighbouring elements. Which channel an element
// belongs to is the layout's business: cuda_channels_last.cuh, cuda_contiguous.cuh.
#pragma once

#include "common/dispatch.h"
#include "common/pack.cuh"
#include "frozen_bn/frozen_bn_math.h"

namespace resnet_cuda {

// N neighbours' numbers from constants that no kernel writes, `source` being aligned to 16 bytes.
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

// Whether there is a residual is known at compile time, as its packs take registers; whether there is a ReLU is not: it
// costs nothing but a predicate.
template <typename T, bool kResidual>
struct FrozenBnForward {
  using Element = T;
  using Real = typename ComputeType<T>::type;
  static constexpr int kReads = kResidual ? 2 : 1;

  const T* input;
  const Real* scale;
  const Real* shift;
  const T* residual;  // null without kResidual
  T* output;          // may be `input`, which may be `residual`: none of the three is read by way of a read-only cache
  bool relu;

  struct Constant {
    Real scale;
    Real shift;
  };

  RESNET_CUDA_BODY Constant constant(int64_t channel) const {
    return {load_constant_pack<1>(scale + channel).element[0], load_constant_pack<1>(shift + channel).element[0]};
  }

  // Of the N channels from `channel` on, both arrays being aligned there.
  template <int N>
  RESNET_CUDA_BODY void constants(int64_t channel, Constant (&constant)[N]) const {
    Real scales[N], shifts[N];
    load_constants(scale + channel, scales);
    load_constants(shift + channel, shifts);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      constant[i] = {scales[i], shifts[i]};
    }
  }

  template <int N>
  RESNET_CUDA_BODY void read(int64_t begin, PackWord<T, N> (&pack)[kReads]) const {
    pack[0] = load_pack_word<N>(input + begin);
    if constexpr (kResidual) {
      pack[1] = load_pack_word<N>(residual + begin);
    }
  }

  // `constant_of(i)` is that of element begin + i.
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

// The gradient of the residual is that of the sum, the input's is scaled; both come of one pass. `kRelu`: from the
// saved output, which is then read beside the gradient.
template <typename T, bool kRelu>
struct FrozenBnBackward {
  using Element = T;
  using Real = typename ComputeType<T>::type;
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
