// Calls an operator from inside a parallel region, as an operator that works on several images at once would.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <vector>

using torch::stable::Tensor;

// Without torch's macro for it, whose name changed in torch 2.13. (csrc is not there where a wheel alone is tested.)
void call(const char* name, StableIValue* stack) {
  if (torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION) != 0) {
    throw std::runtime_error(name);
  }
}

// `calls` times resnet_cuda::frozen_bn_relu(input, scale, shift, None, True), in parallel.
std::vector<Tensor> frozen_bn_relu_in_parallel(Tensor input, Tensor scale, Tensor shift, int64_t calls) {
  std::vector<std::optional<Tensor>> results(static_cast<size_t>(calls));
  torch::stable::parallel_for(0, calls, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::array<StableIValue, 5> stack{
          torch::stable::detail::from(input),
          torch::stable::detail::from(scale),
          torch::stable::detail::from(shift),
          torch::stable::detail::from(std::nullopt),
          torch::stable::detail::from(true)};
      call("resnet_cuda::frozen_bn_relu", stack.data());
      results[static_cast<size_t>(i)] = torch::stable::detail::to<Tensor>(stack[0]);
    }
  });
  std::vector<Tensor> found;
  for (const auto& result : results) {
    found.push_back(*result);
  }
  return found;
}

// The same of deform_conv2d_backward: of each call the gradient for the input.
std::vector<Tensor>
deform_conv2d_backward_in_parallel(Tensor grad, Tensor input, Tensor weight, Tensor offset, int64_t calls) {
  std::vector<std::optional<Tensor>> results(static_cast<size_t>(calls));
  torch::stable::parallel_for(0, calls, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto one = torch::stable::detail::from(int64_t{1});
      const auto yes = torch::stable::detail::from(true);
      const auto no = torch::stable::detail::from(false);
      std::array<StableIValue, 16> stack{
          torch::stable::detail::from(grad),
          torch::stable::detail::from(input),
          torch::stable::detail::from(weight),
          torch::stable::detail::from(offset),
          torch::stable::detail::from(std::nullopt),
          one,
          one,
          one,
          one,
          one,
          one,
          yes,
          no,
          no,
          no,
          no};
      call("resnet_cuda::deform_conv2d_backward", stack.data());
      results[static_cast<size_t>(i)] = torch::stable::detail::to<Tensor>(stack[0]);
      for (size_t other = 1; other < 5; ++other) {
        torch::stable::detail::to<Tensor>(stack[other]);
      }
    }
  });
  std::vector<Tensor> found;
  for (const auto& result : results) {
    found.push_back(*result);
  }
  return found;
}

STABLE_TORCH_LIBRARY(resnet_cuda_nested_test, m) {
  m.def("frozen_bn_relu_in_parallel(Tensor input, Tensor scale, Tensor shift, int calls) -> Tensor[]");
  m.def(
      "deform_conv2d_backward_in_parallel(Tensor grad, Tensor input, Tensor weight, Tensor offset, int calls) -> "
      "Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_nested_test, CPU, m) {
  m.impl("frozen_bn_relu_in_parallel", TORCH_BOX(&frozen_bn_relu_in_parallel));
  m.impl("deform_conv2d_backward_in_parallel", TORCH_BOX(&deform_conv2d_backward_in_parallel));
}
