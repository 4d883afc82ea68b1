// Argument errors that name the operator, the argument, what it was and what is allowed. Messages begin with the
// operator's name, not with a source location, because it is the caller who reads them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace resnet_cuda {

template <typename... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  return text.str();
}

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

// "of shape (2, 3, 5, 7)"
inline std::string shape_of(const torch::stable::Tensor& tensor) {
  std::ostringstream text;
  text << "of shape (";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text << (i == 0 ? "" : ", ") << tensor.size(i);
  }
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

inline std::string dtype_name(torch::headeronly::ScalarType dtype) {
  return join("torch.", [&] {
    switch (dtype) {
      case torch::headeronly::ScalarType::Double:
        return "float64";
      case torch::headeronly::ScalarType::Float:
        return "float32";
      case torch::headeronly::ScalarType::Half:
        return "float16";
      case torch::headeronly::ScalarType::BFloat16:
        return "bfloat16";
      default:
        return torch::headeronly::toString(dtype);
    }
  }());
}

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
  RESNET_CUDA_CHECK_ARGUMENT(same_device, op, name, "on another device", "on input's device");
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
