// Texts for error messages, without streams or locales: a library with a libstdc++ of its own (-static-libstdc++)
// shares their tables with the process's libstdc++, and crashes or truncates a text at its first number.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "common/torch_stable.h"

namespace resnet_cuda {

using torch::headeronly::ScalarType;

template <typename Part>
void append(std::string& text, const Part& part) {
  if constexpr (std::is_integral_v<Part>) {
    text += std::to_string(part);
  } else {
    text += part;
  }
}

// Concatenates strings and integers.
template <typename... Parts>
std::string join(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

// "(2, 3, 5, 7)", as Python prints it.
inline std::string tuple_text(const int64_t* values, int64_t count) {
  std::string text = "(";
  for (int64_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  }
  return text + (count == 1 ? ",)" : ")");
}

// "of shape (2, 3, 5, 7)"
inline std::string shape_of(const torch::stable::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return "of shape " + tuple_text(sizes.data(), tensor.dim());
}

// "torch.float32"
inline std::string dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::ComplexDouble:
      return "torch.complex128";
    case ScalarType::ComplexFloat:
      return "torch.complex64";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Short:
      return "torch.int16";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::Bool:
      return "torch.bool";
    default:
      return join("torch.", torch::headeronly::toString(dtype));
  }
}

// "cuda:0" or "cpu", as torch prints it.
inline std::string device_name(const torch::stable::Device& device) {
  using torch::headeronly::DeviceType;
  const std::string type = [&]() -> std::string {
    switch (device.type()) {
      case DeviceType::CPU:
        return "cpu";
      case DeviceType::CUDA:
        return "cuda";
      case DeviceType::HIP:
        return "hip";
      case DeviceType::XLA:
        return "xla";
      case DeviceType::XPU:
        return "xpu";
      case DeviceType::MPS:
        return "mps";
      case DeviceType::Meta:
        return "meta";
      case DeviceType::HPU:
        return "hpu";
      case DeviceType::MTIA:
        return "mtia";
      case DeviceType::PrivateUse1:
        return "privateuseone";
      default:
        return join("torch's DeviceType ", static_cast<int>(device.type()));
    }
  }();
  return device.has_index() ? join(type, ":", static_cast<int>(device.index())) : type;
}

}  // namespace resnet_cuda
