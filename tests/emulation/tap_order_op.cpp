// csrc/deform_conv/cuda_tap_order.cuh as an operator, for the tests.

#include <torch/headeronly/util/BFloat16.h>

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv/cuda_tap_order.cuh"

namespace resnet_cuda {
namespace {

using torch::headeronly::BFloat16;

template <bool kTapsLast, typename From, typename T>
void reorder_as(const Tensor& source, const Tensor& target, const DeformConvShape& shape, int count) {
  reorder_taps<kTapsLast>(
      Launcher(source),
      static_cast<const From*>(source.const_data_ptr()),
      static_cast<T*>(target.mutable_data_ptr()),
      shape,
      count);
}

template <bool kTapsLast>
void reorder_in(const Tensor& source, const Tensor& target, const DeformConvShape& shape, int count) {
  const bool narrows = source.scalar_type() == ScalarType::Float && target.scalar_type() == ScalarType::BFloat16;
  if (!narrows && source.scalar_type() != target.scalar_type()) {
    throw std::runtime_error("tap_order_op: source and target have different dtypes");
  }
  switch (source.scalar_type()) {
    case ScalarType::Double:
      return reorder_as<kTapsLast, double, double>(source, target, shape, count);
    case ScalarType::BFloat16:
      return reorder_as<kTapsLast, BFloat16, BFloat16>(source, target, shape, count);
    case ScalarType::Float:
      return narrows ? reorder_as<kTapsLast, float, BFloat16>(source, target, shape, count)
                     : reorder_as<kTapsLast, float, float>(source, target, shape, count);
    default:
      throw std::runtime_error("tap_order_op: a dtype that is not compiled here");
  }
}

// Writes the sum of the `count` weights in `source` to `target`: [O, C/groups, taps] from [O, taps, C/groups], or,
// without taps_last, the other way round. Both are dense, from their first element on.
void reorder(
    const Tensor& source,
    const Tensor& target,
    int64_t outputs,
    int64_t channels,
    int64_t taps,
    int64_t count,
    bool taps_last) {
  DeformConvShape shape{};
  shape.out_channels = outputs;
  shape.channels = channels;
  shape.groups = 1;
  shape.kernel_h = 1;
  shape.kernel_w = taps;
  const auto run = taps_last ? reorder_in<true> : reorder_in<false>;
  run(source, target, shape, static_cast<int>(count));
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_tap_order, m) {
  m.def(
      "reorder(Tensor source, Tensor(a!) target, int outputs, int channels, int taps, int count, bool taps_last) -> "
      "()");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_tap_order, CPU, m) {
  m.impl("reorder", TORCH_BOX(&resnet_cuda::reorder));
}
