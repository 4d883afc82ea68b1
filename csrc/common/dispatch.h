// From a tensor's dtype to the element type that the CUDA kernels are compiled for.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstddef>
#include <iterator>
#include <utility>

#include "common/checks.h"
#include "common/storage_types.h"

namespace resnet_cuda {

template <ScalarType>
constexpr bool kAlwaysFalse = false;

template <ScalarType kDtype>
struct ElementOf {
  static_assert(kAlwaysFalse<kDtype>, "an element of kSupportedDtypes has no element type for the CUDA kernels");
};
template <>
struct ElementOf<ScalarType::Double> {
  using type = double;
};
template <>
struct ElementOf<ScalarType::Float> {
  using type = float;
};
template <>
struct ElementOf<ScalarType::Half> {
  using type = torch::headeronly::Half;
};
template <>
struct ElementOf<ScalarType::BFloat16> {
  using type = torch::headeronly::BFloat16;
};

// The dtypes that the kernels are compiled for.
#if defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs, once per bug
constexpr ScalarType kCompiledDtypes[] = {ScalarType::Float};
#else
inline constexpr auto& kCompiledDtypes = kSupportedDtypes;
#endif

template <typename Visit, std::size_t... kIndex>
void dispatch_among(ScalarType dtype, const Visit& visit, std::index_sequence<kIndex...>) {
  const bool found =
      ((dtype == kCompiledDtypes[kIndex] && (visit(typename ElementOf<kCompiledDtypes[kIndex]>::type{}), true)) || ...);
  if (!found) {
    throw_unsupported_dtype(dtype);
  }
}

// Calls the generic lambda `visit` with a value of the element type.
template <typename Visit>
void dispatch_dtype(ScalarType dtype, const Visit& visit) {
  dispatch_among(dtype, visit, std::make_index_sequence<std::size(kCompiledDtypes)>{});
}

}  // namespace resnet_cuda
