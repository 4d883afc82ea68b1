// Memory layouts and allocation, shared by the operators, on the stable ABI.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/text.h"
#include "common/torch_stable.h"

namespace resnet_cuda {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;

// As Tensor.is_contiguous(memory_format=torch.channels_last), for a 4-D tensor.
inline bool is_channels_last(const Tensor& tensor) {
  int64_t expected = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (tensor.size(dim) != 1) {
      if (tensor.stride(dim) != expected) {
        return false;
      }
      expected *= tensor.size(dim);
    }
  }
  return true;
}

// The result's layout: channels_last for an input that is so and not also contiguous, else contiguous.
inline MemoryFormat output_memory_format(const Tensor& input) {
  return !input.is_contiguous() && is_channels_last(input) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// The code that torch's C functions take for a dtype.
inline int32_t dtype_code(ScalarType dtype) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
}

// `reason` is torch's text, if there is one: it stays, so that a search for "CUDA out of memory. " finds it, by which
// training loops tell a batch that is too large.
[[noreturn]] inline void throw_allocation_error(
    const int64_t* size,
    int64_t dims,
    ScalarType dtype,
    const torch::stable::Device& device,
    const std::string& reason) {
  auto bytes = static_cast<int64_t>(aoti_torch_dtype_element_size(dtype_code(dtype)));
  const bool on_cuda = device.type() == torch::headeronly::DeviceType::CUDA;
  bool fits = true;
  for (int64_t i = 0; i < dims; ++i) {
    fits = fits && !__builtin_mul_overflow(bytes, size[i], &bytes);
  }
  throw TorchError(join(
      "cannot allocate ",
      fits ? std::to_string(bytes) : "more than 2^63",
      " bytes for a tensor of shape ",
      tuple_text(size, dims),
      " of ",
      dtype_name(dtype),
      " on ",
      device_name(device),
      ": ",
      reason.empty() ? join(on_cuda ? "CUDA out of memory. " : "out of memory. ", kUnknownReason) : reason));
}

// Allocates through the dispatcher, so that profilers see it and PyTorch's deterministic mode fills it; new_empty is
// the one such operator with a C function of its own, which needs no boxed arguments. Channels_last is for 4-D tensors.
inline Tensor empty_beside(
    const Tensor& tensor,
    const std::vector<int64_t>& size,
    ScalarType dtype,
    MemoryFormat memory_format = MemoryFormat::Contiguous) {
  int32_t device_type;
  RESNET_CUDA_TORCH_CHECK(aoti_torch_get_device_type(tensor.get(), &device_type));
  int32_t code = dtype_code(dtype);
  const auto dims = static_cast<int64_t>(size.size());
  AtenTensorHandle contiguous;
  const auto failed = aoti_torch_aten_new_empty(
      tensor.get(), size.data(), dims, &code, nullptr, &device_type, tensor.get_device_index(), nullptr, &contiguous);
  if (failed) {
    throw_allocation_error(size.data(), dims, dtype, tensor.device(), torch_error_text());
  }
  const Tensor result(contiguous);
  if (memory_format != MemoryFormat::ChannelsLast) {
    return result;
  }
  const std::array<int64_t, 4> strides = {size[1] * size[2] * size[3], 1, size[3] * size[1], size[1]};
  AtenTensorHandle permuted;
  RESNET_CUDA_TORCH_CHECK(
      aoti_torch__reinterpret_tensor(result.get(), dims, size.data(), strides.data(), 0, &permuted));
  return Tensor(permuted);
}

inline Tensor zeros_beside(
    const Tensor& tensor,
    const std::vector<int64_t>& size,
    ScalarType dtype,
    MemoryFormat memory_format = MemoryFormat::Contiguous) {
  Tensor result = empty_beside(tensor, size, dtype, memory_format);
  torch::stable::zero_(result);
  return result;
}

inline std::vector<int64_t> size_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return std::vector<int64_t>(sizes.begin(), sizes.end());
}

// Calls copy(), which allocates as much as `tensor` has in `dtype`, with that in the text of an error that is, or may
// be, for want of memory: not where torch says something else, such as an earlier kernel's illegal access.
template <typename Copy>
Tensor with_allocation_error(const Tensor& tensor, ScalarType dtype, const Copy& copy) {
  try {
    return copy();
  } catch (const TorchError& error) {
    // Where torch keeps no text, what() says only which function failed.
    const std::string reason = torch_error_text().empty() ? std::string() : error.what();
    if (!reason.empty() && reason.find("allocate") == std::string::npos &&
        reason.find("out of memory") == std::string::npos) {
      throw;
    }
    throw_allocation_error(tensor.sizes().data(), tensor.dim(), dtype, tensor.device(), reason);
  }
}

// `tensor`, copied if it is not dense in `memory_format`. Unlike torch::stable::contiguous, the check costs no call
// through the dispatcher. Channels_last is for 4-D tensors.
inline Tensor as_dense(const Tensor& tensor, MemoryFormat memory_format) {
  const bool dense = memory_format == MemoryFormat::ChannelsLast ? is_channels_last(tensor) : tensor.is_contiguous();
  if (dense) {
    return tensor;
  }
  return with_allocation_error(
      tensor, tensor.scalar_type(), [&] { return torch::stable::contiguous(tensor, memory_format); });
}

// `tensor` in `dtype`, copied if it is not dense in `memory_format` or of another dtype.
inline Tensor as_dense(const Tensor& tensor, ScalarType dtype, MemoryFormat memory_format) {
  if (tensor.scalar_type() == dtype) {
    return as_dense(tensor, memory_format);
  }
  return as_dense(
      with_allocation_error(tensor, dtype, [&] { return torch::stable::to(tensor, dtype); }), memory_format);
}

// Strides, in elements, of a dense 4-D tensor in either layout, its two spatial dimensions taken as one.
struct PixelStrides {
  int64_t image;
  int64_t channel;
  int64_t pixel;
};

inline PixelStrides pixel_strides(const Tensor& dense, bool channels_last) {
  const int64_t channels = dense.size(1);
  const int64_t pixels = dense.size(2) * dense.size(3);
  return channels_last ? PixelStrides{channels * pixels, 1, channels} : PixelStrides{channels * pixels, pixels, 1};
}

}  // namespace resnet_cuda
