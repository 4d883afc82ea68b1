// Argument errors that name the operator, the argument, what it was and what is allowed. Messages begin with the
// operator's name, not with a source location, because it is the caller who reads them.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <stdexcept>

#include "common/text.h"

namespace resnet_cuda {

template <typename Was, typename Allowed>
[[noreturn]] void throw_argument_error(const char* op, const char* name, const Was& was, const Allowed& allowed) {
  throw std::runtime_error(join(op, ": ", name, " is ", was, "; it must be ", allowed));
}

// A macro, so that the text is built only when the check fails: on small images building it took longer than the work.
#define RESNET_CUDA_CHECK_ARGUMENT(holds, op, name, was, allowed)          \
  do {                                                                     \
    if (!(holds)) {                                                        \
      ::resnet_cuda::throw_argument_error((op), (name), (was), (allowed)); \
    }                                                                      \
  } while (false)

// A further one needs kernels, which the compiler asks for: on a CPU storage_of (common/cpu_dispatch.h) by a
// static_assert, then each switch over Storage by -Werror=switch; on CUDA ElementOf (common/dispatch.h) by a
// static_assert. FLOATING in resnet_cuda/reference/checks.py must have it too; a test compares the two.
inline constexpr ScalarType kSupportedDtypes[] = {
    ScalarType::Double,
    ScalarType::Float,
    ScalarType::Half,
    ScalarType::BFloat16};

// For a dtype that has passed the checks but has no kernels.
[[noreturn]] inline void throw_unsupported_dtype(ScalarType dtype) {
  throw std::runtime_error("resnet_cuda has no kernels for " + dtype_name(dtype));
}

inline void check_supported_dtype(const char* op, const char* name, ScalarType dtype) {
  const auto* end = std::end(kSupportedDtypes);
  const auto allowed = [&] {
    std::string text = "one of ";
    for (const ScalarType supported : kSupportedDtypes) {
      text += (supported == kSupportedDtypes[0] ? "" : ", ") + dtype_name(supported);
    }
    return text;
  };
  RESNET_CUDA_CHECK_ARGUMENT(
      std::find(std::begin(kSupportedDtypes), end, dtype) != end, op, name, dtype_name(dtype), allowed());
}

// float64 is computed in float64, everything else in float32.
inline ScalarType compute_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_input(const char* op, const torch::stable::Tensor& input, const char* name = "input") {
  check_supported_dtype(op, name, input.scalar_type());
  RESNET_CUDA_CHECK_ARGUMENT(input.dim() == 4, op, name, shape_of(input), "4-D, (N, C, H, W)");
}

// `tensor` must be on the device of `input`, which is called `input_name`, and have the dtype `first` or `alternative`.
inline void check_beside(
    const char* op,
    const char* name,
    const torch::stable::Tensor& tensor,
    const torch::stable::Tensor& input,
    ScalarType first,
    ScalarType alternative,
    const char* input_name = "input") {
  const bool same_device = tensor.device() == input.device();
  RESNET_CUDA_CHECK_ARGUMENT(
      same_device,
      op,
      name,
      "on " + device_name(tensor.device()),
      join("on ", device_name(input.device()), ", as ", input_name, " is"));
  const auto dtype = tensor.scalar_type();
  const auto allowed = [&] {
    return first == alternative ? dtype_name(first) : join(dtype_name(first), " or ", dtype_name(alternative));
  };
  RESNET_CUDA_CHECK_ARGUMENT(
      dtype == first || dtype == alternative,
      op,
      name,
      dtype_name(dtype),
      join(allowed(), " where ", input_name, " is ", dtype_name(input.scalar_type())));
}

inline bool has_shape(const torch::stable::Tensor& tensor, std::initializer_list<int64_t> expected) {
  const auto sizes = tensor.sizes();
  return std::equal(sizes.begin(), sizes.end(), expected.begin(), expected.end());
}

// `axes` says what the expected sizes are: "(N, O, Ho, Wo)".
inline void check_shape(
    const char* op,
    const char* name,
    const torch::stable::Tensor& tensor,
    const char* axes,
    std::initializer_list<int64_t> expected) {
  const auto count = static_cast<int64_t>(expected.size());
  RESNET_CUDA_CHECK_ARGUMENT(
      has_shape(tensor, expected), op, name, shape_of(tensor), join(axes, " = ", tuple_text(expected.begin(), count)));
}

}  // namespace resnet_cuda
