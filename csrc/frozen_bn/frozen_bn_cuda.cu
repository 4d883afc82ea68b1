// FrozenBatchNorm + residual + ReLU on CUDA: one pass over memory each way; registers CUDA.

#include <initializer_list>
#include <type_traits>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "common/registration.h"
#include "frozen_bn/cuda_channels_last.cuh"
#include "frozen_bn/cuda_contiguous.cuh"
#include "frozen_bn/frozen_bn.h"

namespace resnet_cuda {
namespace {

bool all_aligned(std::initializer_list<const void*> data) {
  for (const void* one : data) {
    if (!is_aligned(one, kPackBytes)) {
      return false;
    }
  }
  return true;
}

template <int N, typename Pass>
void launch_packs(const Launcher& launcher, const FrozenBnLayout& layout, const Pass& pass, bool aligned_constants) {
  const int multiprocessors = launcher.multiprocessors();
  if (layout.plane == 1) {
    const auto body = channels_last_body<N>(layout, pass, aligned_constants, multiprocessors);
    launcher.launch(body.blocks, body);
  } else {
    const auto body = contiguous_body<N>(layout, pass, multiprocessors);
    launcher.launch(body.blocks, body);
  }
}

// In packs of 16 bytes; element by element for views that are not aligned, planes that are too small or too large, and
// sizes whose indices take 64 bits.
template <typename Pass>
void launch_pass(
    const Launcher& launcher,
    const FrozenBnLayout& layout,
    const Pass& pass,
    bool aligned_data,
    bool aligned_constants) {
  constexpr int kWide = kPackBytes / sizeof(typename Pass::Element);
  const bool packs_fit = frozen_bn_cuda::indices_fit(layout.elements / kWide, layout.channels) &&
                         (layout.plane == 1 || contiguous_packs_fit<kWide>(layout));
  if (aligned_data && packs_fit) {
    launch_packs<kWide>(launcher, layout, pass, aligned_constants);
  } else {
    launch_packs<1>(launcher, layout, pass, aligned_constants);
  }
}

template <typename T>
const T* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

template <typename T>
T* mutable_data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->mutable_data_ptr<T>() : nullptr;
}

}  // namespace

void frozen_bn_relu_kernel(
    const FrozenBnLayout& layout,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output) {
  dispatch_dtype(input.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const auto run = [&](auto has_residual) {
      using Pass = FrozenBnForward<T, decltype(has_residual)::value>;
      using Real = typename Pass::Real;
      const auto& statistics = constants.statistics;
      const Pass pass = {
          input.const_data_ptr<T>(),
          constants.weight.const_data_ptr<Real>(),
          constants.bias.const_data_ptr<Real>(),
          statistics ? statistics->mean.const_data_ptr<Real>() : nullptr,
          statistics ? statistics->variance.const_data_ptr<Real>() : nullptr,
          data_or_null<T>(residual),
          output.mutable_data_ptr<T>(),
          mutable_data_or_null<Real>(constants.scale),
          statistics ? static_cast<Real>(statistics->eps) : Real(0),
          relu};
      launch_pass(
          Launcher(input),
          layout,
          pass,
          all_aligned({pass.input, pass.residual, pass.output}),
          all_aligned({pass.weight, pass.bias, pass.mean, pass.variance}));
    };
    residual ? run(std::true_type{}) : run(std::false_type{});
  });
}

void frozen_bn_relu_backward_kernel(
    const FrozenBnLayout& layout,
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    const std::optional<Tensor>& grad_input,
    const std::optional<Tensor>& grad_residual) {
  dispatch_dtype(grad.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const auto run = [&](auto has_relu) {
      using Pass = FrozenBnBackward<T, decltype(has_relu)::value>;
      const Pass pass = {
          grad.const_data_ptr<T>(),
          scale.const_data_ptr<typename Pass::Real>(),
          data_or_null<T>(output),
          mutable_data_or_null<T>(grad_input),
          mutable_data_or_null<T>(grad_residual)};
      launch_pass(
          Launcher(grad),
          layout,
          pass,
          all_aligned({pass.grad, pass.output, pass.grad_input, pass.grad_residual}),
          all_aligned({pass.scale}));
    };
    output ? run(std::true_type{}) : run(std::false_type{});
  });
}

}  // namespace resnet_cuda

RESNET_CUDA_REGISTER_CUDA(m) {
  m.impl("frozen_bn_relu", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu));
  m.impl("frozen_bn_relu_", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_));
  m.impl("frozen_batch_norm", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm));
  m.impl("frozen_batch_norm_", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm_));
  m.impl("frozen_bn_relu_backward", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_backward));
}
