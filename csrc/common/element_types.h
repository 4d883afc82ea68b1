// From a storage type to an element type, for the tables of kernels of one instruction set.
#pragma once

#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// visit(element) with a value of the type that `storage` stands for. All its results have one type.
template <typename Visit>
RESNET_CUDA_INLINE auto with_element(Storage storage, const Visit& visit) {
  switch (storage) {
    case Storage::kDouble:
      return visit(double{});
    case Storage::kHalf:
      return visit(Half16{});
    case Storage::kBFloat16:
      return visit(BFloat16{});
    case Storage::kFloat:
      return visit(float{});
  }
  return decltype(visit(float{})){};
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
