// FrozenBatchNorm + residual + ReLU on CUDA: one pass over memory each way; registers CUDA.

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "common/registration.h"
#include "frozen_bn/frozen_bn.h"
#include "frozen_bn/frozen_bn_bodies.h"

namespace resnet_cuda {
namespace {

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
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output) {
  const Launcher launcher(input);
  dispatch_dtype(input.scalar_type(), [&](auto element) {
    using T = decltype(element);
    using Real = typename ComputeType<T>::type;
    launcher.run(
        layout.elements,
        FrozenBnForward<T, Real>{
            layout,
            input.const_data_ptr<T>(),
            scale.const_data_ptr<Real>(),
            shift.const_data_ptr<Real>(),
            data_or_null<T>(residual),
            relu,
            output.mutable_data_ptr<T>()});
  });
}

void frozen_bn_relu_backward_kernel(
    const FrozenBnLayout& layout,
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    const std::optional<Tensor>& grad_input,
    const std::optional<Tensor>& grad_residual) {
  const Launcher launcher(grad);
  dispatch_dtype(grad.scalar_type(), [&](auto element) {
    using T = decltype(element);
    using Real = typename ComputeType<T>::type;
    launcher.run(
        layout.elements,
        FrozenBnBackward<T, Real>{
            layout,
            grad.const_data_ptr<T>(),
            scale.const_data_ptr<Real>(),
            data_or_null<T>(output),
            mutable_data_or_null<T>(grad_input),
            mutable_data_or_null<T>(grad_residual)});
  });
}

}  // namespace resnet_cuda

RESNET_CUDA_CUDA_KERNELS(m) {
  m.impl("frozen_bn_relu", TORCH_BOX(&resnet_cuda::frozen_bn_relu));
  m.impl("frozen_bn_relu_", TORCH_BOX(&resnet_cuda::frozen_bn_relu_));
  m.impl("frozen_bn_relu_backward", TORCH_BOX(&resnet_cuda::frozen_bn_relu_backward));
}
