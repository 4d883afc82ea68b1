// ATen's batched matrix product through the stable dispatcher, and strided views for its arguments.
#pragma once

#include <array>

#include "common/tensors.h"

#if defined(RESNET_CUDA_EMULATE)
#include "product_emulation.h"
#endif

namespace resnet_cuda {

// A view of `tensor`'s memory from element `begin` on. The caller keeps `tensor` alive.
inline Tensor strided_view(
    const Tensor& tensor,
    int64_t begin,
    const std::vector<int64_t>& size,
    const std::vector<int64_t>& strides) {
  auto* data = static_cast<char*>(tensor.data_ptr()) + begin * static_cast<int64_t>(tensor.element_size());
  return torch::stable::from_blob(data, size, strides, tensor.device(), tensor.scalar_type());
}

// 16-bit operands, `out` in float32: sums are not rounded. (baddbmm, which would also add to `out`, takes a Scalar, and
// the stable dispatcher of torch up to 2.14 passes none.)
inline void widening_product(const Tensor& left, const Tensor& right, const Tensor& out) {
#if defined(RESNET_CUDA_EMULATE)
  emulation::widening_product(left, right, out);  // torch has it for CUDA only
#else
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(left),
      torch::stable::detail::from(right),
      torch::stable::detail::from(out.scalar_type()),
      torch::stable::detail::from(out)};
  RESNET_CUDA_TORCH_CHECK(torch_call_dispatcher("aten::bmm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);
#endif
}

// out[g] = left[g] @ right[g], [G, M, K] x [G, K, N] -> [G, M, N]; any strides. `out` has the operands' dtype or, where
// they are 16-bit, float32.
inline void batched_product(const Tensor& left, const Tensor& right, const Tensor& out) {
  if (out.scalar_type() != left.scalar_type()) {
    return widening_product(left, right, out);
  }
  std::array<StableIValue, 3> stack{
      torch::stable::detail::from(left), torch::stable::detail::from(right), torch::stable::detail::from(out)};
  RESNET_CUDA_TORCH_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
  // The dispatcher hands back `out` once more; taking it releases that handle.
  torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace resnet_cuda
