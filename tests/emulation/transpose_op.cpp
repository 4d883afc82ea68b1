// csrc/common/transpose.cuh as an operator, for the tests.

#include "common/checks.h"
#include "common/registration.h"
#include "common/tensors.h"
#include "common/transpose.cuh"

namespace resnet_cuda {
namespace {

template <typename T>
void transpose_as(const Tensor& source, const Tensor& target) {
  transpose(
      Launcher(source),
      static_cast<const T*>(source.data_ptr()),
      static_cast<T*>(target.data_ptr()),
      source.size(0),
      source.size(1),
      source.size(2));
}

// [batch, rows, columns], dense
Tensor transpose_tensor(const Tensor& source) {
  const Tensor target = empty_beside(source, {source.size(0), source.size(2), source.size(1)}, source.scalar_type());
  switch (source.element_size()) {
    case 2:
      transpose_as<uint16_t>(source, target);
      break;
    case 4:
      transpose_as<float>(source, target);
      break;
    case 8:
      transpose_as<double>(source, target);
      break;
    default:
      throw std::runtime_error("transpose: elements have 2, 4 or 8 bytes");
  }
  return target;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_transpose, m) {
  m.def("transpose(Tensor source) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_transpose, CPU, m) {
  m.impl("transpose", TORCH_BOX(&resnet_cuda::transpose_tensor));
}
