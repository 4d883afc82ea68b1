// Element types: as the CPU kernels see them, without torch's headers, and the type that all kernels compute in.
#pragma once

#include <cstdint>
#include <type_traits>

namespace resnet_cuda {

struct Half16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

enum class Storage { kDouble, kFloat, kHalf, kBFloat16 };

// The type in which elements of T, torch's own types included, are computed.
template <typename T>
using RealOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace resnet_cuda
