// csrc/deform_conv_fused/cuda_gradient_parts.cuh as an operator, for the tests.

#include <torch/headeronly/util/BFloat16.h>

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv_fused/cuda_gradient_parts.cuh"

namespace resnet_cuda {
namespace {

using torch::headeronly::BFloat16;

// The parts of `images` images of `grad`, [N, O, Ho, Wo] in bfloat16, from `first_image` on; [elements].
Tensor pack(const Tensor& grad, int64_t groups, int64_t first_image, int64_t images) {
  DeformConvShape shape{};
  shape.batch = grad.size(0);
  shape.out_channels = grad.size(1);
  shape.out_height = grad.size(2);
  shape.out_width = grad.size(3);
  shape.groups = groups;
  const GradientParts layout(shape, images);
  const Tensor parts = empty_beside(grad, {layout.bytes() / 2}, grad.scalar_type());
  auto* target = static_cast<BFloat16*>(parts.mutable_data_ptr());
  pack_gradient_parts<BFloat16>(Launcher(grad), grad, shape, first_image, images, target);
  return parts;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_gradient_parts, m) {
  m.def("pack(Tensor grad, int groups, int first_image, int images) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_gradient_parts, CPU, m) {
  m.impl("pack", TORCH_BOX(&resnet_cuda::pack));
}
