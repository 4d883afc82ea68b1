// The check of devices, for tensors of any: no machine has a tensor of every device, but any has one without memory.
#include "common/checks.h"

namespace {

void check(torch::stable::Tensor tensor, torch::stable::Tensor input) {
  resnet_cuda::check_beside("op", "weight", tensor, input, input.scalar_type(), input.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY(resnet_cuda_device_texts, m) {
  m.def("check(Tensor tensor, Tensor input) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_device_texts, CompositeExplicitAutograd, m) {
  m.impl("check", TORCH_BOX(&check));
}
