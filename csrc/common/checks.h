// Argument errors that name the operator, the argument, what it was and what is allowed. Messages begin with the
// operator's name, not with a source location, because it is the caller who reads them.
#pragma once

#include <stdexcept>

#include "common/text.h"

namespace resnet_cuda {

template <typename Was, typename Allowed>
[[noreturn]] void throw_argument_error(const char* op, const char* name, const Was& was, const Allowed& allowed) {
  throw std::runtime_error(join(op, ": ", name, " is ", was, "; it must be ", allowed));
}

// A macro, so that the text is put together only where it is read: on small images it took longer than the work.
#define RESNET_CUDA_CHECK_ARGUMENT(holds, op, name, was, allowed)          \
  do {                                                                     \
    if (!(holds)) {                                                        \
      ::resnet_cuda::throw_argument_error((op), (name), (was), (allowed)); \
    }                                                                      \
  } while (false)

inline bool is_supported_dtype(torch::headeronly::ScalarType dtype) {
  using torch::headeronly::ScalarType;
  return dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::Half ||
         dtype == ScalarType::BFloat16;
}

// float64 is computed in float64, everything else in float32.
inline torch::headeronly::ScalarType compute_dtype(torch::headeronly::ScalarType dtype) {
  using torch::headeronly::ScalarType;
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_input(const char* op, const torch::stable::Tensor& input, const char* name = "input") {
  RESNET_CUDA_CHECK_ARGUMENT(
      is_supported_dtype(input.scalar_type()),
      op,
      name,
      dtype_name(input.scalar_type()),
      "one of torch.float64, torch.float32, torch.float16, torch.bfloat16");
  RESNET_CUDA_CHECK_ARGUMENT(input.dim() == 4, op, name, shape_of(input), "4-D, (N, C, H, W)");
}

// `tensor` is on the same device as `input` and has its dtype or, where that is allowed, `alternative`.
inline void check_beside(
    const char* op,
    const char* name,
    const torch::stable::Tensor& tensor,
    const torch::stable::Tensor& input,
    torch::headeronly::ScalarType first,
    torch::headeronly::ScalarType alternative) {
  const bool same_device = tensor.device() == input.device();
  RESNET_CUDA_CHECK_ARGUMENT(
      same_device,
      op,
      name,
      "on " + device_name(tensor.device()),
      join("on ", device_name(input.device()), ", as input is"));
  const auto dtype = tensor.scalar_type();
  const auto allowed = [&] {
    return first == alternative ? dtype_name(first) : join(dtype_name(first), " or ", dtype_name(alternative));
  };
  RESNET_CUDA_CHECK_ARGUMENT(
      dtype == first || dtype == alternative,
      op,
      name,
      dtype_name(dtype),
      join(allowed(), " beside an input of ", dtype_name(input.scalar_type())));
}

}  // namespace resnet_cuda
