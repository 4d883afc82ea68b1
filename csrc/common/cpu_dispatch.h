// From a tensor's dtype and this machine's instruction sets to the table of CPU kernels.
#pragma once

#include <cstddef>
#include <iterator>

#include "common/checks.h"
#include "common/instruction_sets.h"
#include "common/storage_types.h"

namespace resnet_cuda {

constexpr Storage storage_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return Storage::kDouble;
    case ScalarType::Float:
      return Storage::kFloat;
    case ScalarType::Half:
      return Storage::kHalf;
    case ScalarType::BFloat16:
      return Storage::kBFloat16;
    default:
      throw_unsupported_dtype(dtype);
  }
}

constexpr bool every_supported_dtype_has_a_storage() {
  for (const ScalarType dtype : kSupportedDtypes) {
    storage_of(dtype);
  }
  return true;
}
static_assert(every_supported_dtype_has_a_storage());

// An operator's kernels of one instruction set for a storage type; null where it has none of its own.
template <typename Kernels>
using KernelsFor = const Kernels* (*)(Storage);

// The kernels for the best usable instruction set that has any. `sets` has a function for each row of
// common/instruction_sets.h, in its order; null where the operator has no kernels for the set.
template <typename Kernels, std::size_t count>
const Kernels& choose_kernels(ScalarType dtype, const KernelsFor<Kernels> (&sets)[count]) {
  static_assert(count == std::size(kInstructionSets), "name kernels, or nullptr, for every instruction set");
  const Storage storage = storage_of(dtype);
  for (std::size_t i = count; i-- > 0;) {
    const Kernels* kernels = is_usable(kInstructionSets[i]) && sets[i] != nullptr ? sets[i](storage) : nullptr;
    if (kernels != nullptr) {
      return *kernels;
    }
  }
  throw_unsupported_dtype(dtype);
}

}  // namespace resnet_cuda
