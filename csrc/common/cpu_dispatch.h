// From a tensor's dtype and this machine's instruction sets to the table of CPU kernels.
#pragma once

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

// An operator's kernels for one instruction set and storage type; null where it has none of its own.
template <typename Kernels>
using KernelsOf = const Kernels* (*)(InstructionSet, Storage);

// The kernels for the best usable instruction set for which kernels_of gives a table.
template <typename Kernels>
const Kernels& choose_kernels(ScalarType dtype, KernelsOf<Kernels> kernels_of) {
  const Storage storage = storage_of(dtype);
  for (auto set = std::rbegin(kInstructionSets); set != std::rend(kInstructionSets); ++set) {
    const Kernels* kernels = is_usable(*set) ? kernels_of(*set, storage) : nullptr;
    if (kernels != nullptr) {
      return *kernels;
    }
  }
  throw_unsupported_dtype(dtype);
}

}  // namespace resnet_cuda
