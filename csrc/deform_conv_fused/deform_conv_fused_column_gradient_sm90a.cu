// The fused columns' gradient of the deformable convolution on CUDA, in bfloat16 and float16.

#include "deform_conv_fused/cuda_column_gradient_call.cuh"

namespace resnet_cuda {
namespace {

bool fits(const Launcher& launcher, const DeformConvArguments& arguments) {
  constexpr int kPack = kPackBytes / 2;
  const DeformConvShape& shape = arguments.shape;
  const ScalarType dtype = arguments.input.scalar_type();
  return (dtype == ScalarType::BFloat16 || dtype == ScalarType::Half) &&
         is_aligned(arguments.input.const_data_ptr(), kPackBytes) &&
         shape.group_channels() % device::kRowElements == 0 &&
         shape.offset_group_channels() % device::kRowElements == 0 && gradient_slices(shape) <= kMostSlices &&
         // Corners are counted in packs from a chunk's first image on.
         shape.batch * shape.height * shape.width <= kMostInt32 / (shape.channels / kPack) &&
         launcher.runs_warpgroups();
}

ColumnGradientFunction make(const Launcher& launcher, const DeformConvArguments& arguments, int64_t most_pixels) {
  if (arguments.input.scalar_type() == ScalarType::BFloat16) {
    return ColumnGradientCalls<torch::headeronly::BFloat16>(launcher, arguments, most_pixels);
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  return ColumnGradientCalls<torch::headeronly::Half>(launcher, arguments, most_pixels);
#else
  return {};
#endif
}

constexpr FusedColumnGradientFunctions kFunctions{&fits, &transposed_weight_bytes, &gradient_part_bytes, &make};

// When the library is loaded.
[[maybe_unused]] const bool kRegistered = [] {
  fused_column_gradient = &kFunctions;
  return true;
}();

}  // namespace
}  // namespace resnet_cuda
