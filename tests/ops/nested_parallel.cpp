// Calls an operator from inside a parallel region, as an operator that works on several images at once would.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <vector>

namespace stable = torch::stable::detail;
using torch::stable::Tensor;

// Without torch's macro for it, whose name changed in torch 2.13. (csrc is not there where a wheel alone is tested.)
void call(const char* name, StableIValue* stack) {
  if (torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION) != 0) {
    throw std::runtime_error(name);
  }
}

// `calls` times the operator `name`, in parallel: of each call the first of its `results`, which are all tensors.
template <class Arguments>
std::vector<Tensor> in_parallel(const char* name, int64_t calls, size_t results, const Arguments& arguments) {
  std::vector<std::optional<Tensor>> found(static_cast<size_t>(calls));
  torch::stable::parallel_for(0, calls, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      auto stack = arguments();
      call(name, stack.data());
      found[static_cast<size_t>(i)] = stable::to<Tensor>(stack[0]);
      for (size_t other = 1; other < results; ++other) {
        stable::to<Tensor>(stack[other]);
      }
    }
  });
  std::vector<Tensor> tensors;
  for (const auto& tensor : found) {
    tensors.push_back(*tensor);
  }
  return tensors;
}

std::vector<Tensor> frozen_bn_relu_in_parallel(Tensor input, Tensor scale, Tensor shift, int64_t calls) {
  return in_parallel("resnet_cuda::frozen_bn_relu", calls, 1, [&] {
    return std::array{
        stable::from(input), stable::from(scale), stable::from(shift), stable::from(std::nullopt), stable::from(true)};
  });
}

std::vector<Tensor>
deform_conv2d_backward_in_parallel(Tensor grad, Tensor input, Tensor weight, Tensor offset, int64_t calls) {
  return in_parallel("resnet_cuda::deform_conv2d_backward", calls, 5, [&] {
    std::array<StableIValue, 16> stack{
        stable::from(grad),
        stable::from(input),
        stable::from(weight),
        stable::from(offset),
        stable::from(std::nullopt)};
    std::fill_n(stack.begin() + 5, 6, stable::from(int64_t{1}));  // stride, padding, dilation
    std::fill_n(stack.begin() + 11, 5, stable::from(false));
    stack[11] = stable::from(true);  // the gradient for the input
    return stack;
  });
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
