// Element types as the CPU kernels see them, without torch's headers.
#pragma once

#include <cstdint>

namespace resnet_cuda {

struct Half16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

enum class Storage { kDouble, kFloat, kHalf, kBFloat16 };

// What elements of a type are computed in.
template <typename T>
struct RealOfStorage {
  using type = float;
};
template <>
struct RealOfStorage<double> {
  using type = double;
};
template <typename T>
using RealOf = typename RealOfStorage<T>::type;

}  // namespace resnet_cuda
