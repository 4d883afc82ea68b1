// The operator that tests and GPU runs call to see whether the warpgroup layer does on a GPU what its emulation does.
// Registers CUDA, and its own schema: it exists only where this file is compiled.

#include "common/checks.h"
#include "common/launch.cuh"
#include "common/registration.h"
#include "common/tensors.h"
#include "warpgroup_product/cuda_warpgroup_product.cuh"

namespace resnet_cuda {
namespace {

constexpr const char* kOperator = "warpgroup_product";

template <typename T, int kColumns, device::Major kMajorA, device::Major kMajorB>
void run(const Tensor& a, const Tensor& b, const Tensor& result) {
  const Launcher launcher(a);
  RESNET_CUDA_CHECK_ARGUMENT(launcher.runs_warpgroups(), kOperator, "a", "on another GPU", "on one of capability 9.0");
  using Bits = ElementBits<T>;
  const auto depth = static_cast<int>(a.size(1));
  const Tensor image = empty_beside(b, {b.numel()}, b.scalar_type());
  auto* packed = static_cast<unsigned char*>(image.mutable_data_ptr());
  launcher.run(
      b.numel() / UnitOf<Bits>::kElements,
      PackOperand<Bits, kMajorB, kColumns>{static_cast<const Bits*>(b.const_data_ptr()), packed, depth});
  launcher.launch(
      1,
      WarpgroupProduct<T, kColumns, kMajorA, kMajorB>{
          static_cast<const Bits*>(a.const_data_ptr()), packed, static_cast<float*>(result.mutable_data_ptr()), depth});
}

template <typename T, int kColumns>
void run_majors(const Tensor& a, const Tensor& b, bool side_a, bool side_b, const Tensor& result) {
  using device::Major;
  if constexpr (std::is_same_v<T, float>) {
    return run<T, kColumns, Major::kK, Major::kK>(a, b, result);
  } else if (side_a) {
    side_b ? run<T, kColumns, Major::kMN, Major::kMN>(a, b, result)
           : run<T, kColumns, Major::kMN, Major::kK>(a, b, result);
  } else {
    side_b ? run<T, kColumns, Major::kK, Major::kMN>(a, b, result)
           : run<T, kColumns, Major::kK, Major::kK>(a, b, result);
  }
}

// `visit` is called with a value of a's element type.
template <typename Visit>
void dispatch_element(const Tensor& a, const Visit& visit) {
  if (a.scalar_type() == ScalarType::Float) {
    return visit(float());
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one kind compiles faster
  if (a.scalar_type() == ScalarType::Half) {
    return visit(torch::headeronly::Half());
  }
#endif
  visit(torch::headeronly::BFloat16());
}

template <typename T>
void run_columns(const Tensor& a, const Tensor& b, bool side_a, bool side_b, const Tensor& result) {
#if !defined(RESNET_CUDA_FLOAT32_ONLY)
  if (b.size(0) == 256) {
    return run_majors<T, 256>(a, b, side_a, side_b, result);
  }
#endif
  run_majors<T, 128>(a, b, side_a, side_b, result);
}

// a [128, k], b [128 or 256, k], 16-bit, k a multiple of 64; or float32, rounded to TF32, k a multiple of 32. Gives
// a b^T in float32. In shared memory a row holds k of one row of a (b), or with side_a (side_b) rows of one k.
Tensor warpgroup_product(const Tensor& a, const Tensor& b, bool side_a, bool side_b) {
  const bool tf32 = a.scalar_type() == ScalarType::Float;
  RESNET_CUDA_CHECK_ARGUMENT(
      tf32 || a.scalar_type() == ScalarType::BFloat16 || a.scalar_type() == ScalarType::Half,
      kOperator,
      "a",
      dtype_name(a.scalar_type()),
      "torch.bfloat16, torch.float16 or torch.float32");
  const int64_t row = device::kSwizzledRow / static_cast<int64_t>(a.element_size());
  RESNET_CUDA_CHECK_ARGUMENT(
      a.dim() == 2 && a.is_contiguous() && a.size(0) == 128 && a.size(1) > 0 && a.size(1) % row == 0,
      kOperator,
      "a",
      shape_of(a),
      join("contiguous, (128, k), k a positive multiple of ", row));
  check_beside(kOperator, "b", b, a, a.scalar_type(), a.scalar_type(), "a");
  RESNET_CUDA_CHECK_ARGUMENT(
      b.dim() == 2 && b.is_contiguous() && (b.size(0) == 128 || b.size(0) == 256) && b.size(1) == a.size(1),
      kOperator,
      "b",
      shape_of(b),
      "contiguous, (128, k) or (256, k), k as in a");
  RESNET_CUDA_CHECK_ARGUMENT(
      !tf32 || (!side_a && !side_b), kOperator, "side_a or side_b", "True", "False for float32: TF32 has no such form");
  const Tensor result = empty_beside(a, {128, b.size(0)}, ScalarType::Float);
  dispatch_element(a, [&](auto element) { run_columns<decltype(element)>(a, b, side_a, side_b, result); });
  return result;
}

}  // namespace
}  // namespace resnet_cuda

RESNET_CUDA_MORE_SCHEMAS(m) {
  m.def("warpgroup_product(Tensor a, Tensor b, bool side_a, bool side_b) -> Tensor");
}

RESNET_CUDA_REGISTER_CUDA(m) {
  m.impl("warpgroup_product", RESNET_CUDA_BOX(&resnet_cuda::warpgroup_product));
}
