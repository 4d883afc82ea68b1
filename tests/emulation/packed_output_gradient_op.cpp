// csrc/deform_conv_fused/cuda_packed_output_gradient.cuh as an operator, for the tests.

#include <torch/headeronly/util/BFloat16.h>

#include "common/registration.h"
#include "common/tensors.h"
#include "deform_conv_fused/cuda_packed_output_gradient.cuh"

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
  const PackedOutputGradient layout(shape, images);
  const Tensor parts = empty_beside(grad, {layout.bytes() / 2}, grad.scalar_type());
  auto* target = static_cast<BFloat16*>(parts.mutable_data_ptr());
  pack_output_gradient<BFloat16>(Launcher(grad), grad, shape, first_image, images, target);
  return parts;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulated_packed_output_gradient, m) {
  m.def("pack(Tensor grad, int groups, int first_image, int images) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulated_packed_output_gradient, CPU, m) {
  m.impl("pack", TORCH_BOX(&resnet_cuda::pack));
}
