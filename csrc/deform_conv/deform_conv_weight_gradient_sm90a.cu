// The weight's gradient of the deformable convolution on CUDA, in bfloat16 and float16. So far the operand alone.

#include "deform_conv/cuda_gradient_parts.cuh"

namespace resnet_cuda {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template void pack_gradient_parts(const Launcher&, const Tensor&, const DeformConvShape&, int64_t, int64_t, BFloat16*);
template void pack_gradient_parts(const Launcher&, const Tensor&, const DeformConvShape&, int64_t, int64_t, Half*);

}  // namespace resnet_cuda
