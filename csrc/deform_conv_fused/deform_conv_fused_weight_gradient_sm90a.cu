// The weight's gradient of the deformable convolution on CUDA, in bfloat16 and float16, without columns: packs the
// output's gradient, then samples and multiplies in one kernel, then adds the sums of its blocks.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "common/checks.h"
#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/tensors.h"
#include "common/text.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_workspace.h"
#include "deform_conv_fused/cuda_fused.h"
#include "deform_conv_fused/cuda_weight_gradient.cuh"
#include "deform_conv_fused/cuda_weight_gradient_uniform.cuh"
#include "deform_conv_fused/cuda_weight_tile_sums.cuh"

namespace resnet_cuda {
namespace {

// Less than 2^31 by what a look at the next steps' pixels may go too far.
constexpr int64_t kMostPixels = kMostInt32 - 1023;

// 16-byte packs of an input image, in 16 bits.
int64_t image_packs(const DeformConvShape& shape) {
  return shape.height * shape.width * shape.channels / (kPackBytes / 2);
}

bool fits(const DeformConvArguments& arguments) {
  const DeformConvShape& shape = arguments.shape;
  const ScalarType dtype = arguments.input.scalar_type();
  return (dtype == ScalarType::BFloat16 || dtype == ScalarType::Half) && is_dense_channels_last(arguments.input) &&
         is_aligned(arguments.input.const_data_ptr(), kPackBytes) && shape.group_channels() % kSliceChannels == 0 &&
         shape.offset_group_channels() % kSliceChannels == 0 && shape.out_pixels() < kMostPixels &&
         image_packs(shape) <= kMostInt32 && shape.taps() * shape.group_channels() * shape.out_channels <= kMostInt32;
}

template <typename T, int kRows, bool kUniform>
class WeightGradient {
  using Body = FusedWeightGradient<T, kRows, kUniform>;
  using Layout = typename Body::Layout;

 public:
  WeightGradient(const DeformConvArguments& arguments, const Tensor& grad)
      : arguments_(arguments),
        shape_(arguments.shape),
        grad_(grad),
        launcher_(arguments.input),
        units_(shape_.taps() * shape_.group_channels() / kSliceChannels),
        column_tiles_(ceil_div(units_, kTileUnits)),
        row_tiles_(ceil_div(shape_.group_out_channels(), kRows)),
        tiles_(shape_.groups * row_tiles_ * column_tiles_),
        sums_(StreamK::places(tiles_, launcher_.multiprocessors()) * Layout::kElements) {
  }

  // [O, C/groups, kh, kw]. The output's gradient is packed for as many images at a time as fit the workspace; the sums
  // of several such chunks are float32, and rounded with the last one's.
  Tensor run() const {
    const int64_t images = chunk_images();
    const Tensor gradient = empty_beside(grad_, size_of(arguments_.weight), grad_.scalar_type());
    const Tensor sums = empty_beside(grad_, {sums_}, ScalarType::Float);
    const int64_t packed = PackedOutputGradient(shape_, images).bytes() / static_cast<int64_t>(sizeof(T));
    const Tensor parts = empty_beside(grad_, {packed}, grad_.scalar_type());
    std::optional<Tensor> total;
    if (images < shape_.batch) {
      total = empty_beside(grad_, {gradient.numel()}, ScalarType::Float);
    }
    for (int64_t image = 0; image < shape_.batch; image += images) {
      const int64_t count = smaller(images, shape_.batch - image);
      const WeightGradientCall call = call_of(image, count);
      multiply(call, count, sums, parts);
      const float* before = image > 0 ? static_cast<const float*>(total->const_data_ptr()) : nullptr;
      if (image + count < shape_.batch) {
        add(call, sums, before, static_cast<float*>(total->mutable_data_ptr()));
      } else {
        add(call, sums, before, static_cast<T*>(gradient.mutable_data_ptr()));
      }
    }
    return gradient;
  }

 private:
  // At least half of the workspace is for the packed gradient, and room for one image.
  int64_t chunk_images() const {
    const int64_t totals = shape_.out_channels * units_ * kSliceChannels;
    const int64_t sums_bytes = (sums_ + totals) * static_cast<int64_t>(sizeof(float));
    const int64_t room = std::max(kWorkspaceBytes - sums_bytes, kWorkspaceBytes / 2);
    const int64_t image_bytes =
        shape_.out_pixels() * PackedOutputGradient(shape_, 1).channel_parts() * device::kSwizzledRow;
    const int64_t countable = std::min(kMostPixels / shape_.out_pixels(), kMostInt32 / image_packs(shape_));
    const int64_t most = std::min(countable, std::max<int64_t>(room / image_bytes, 1));
    return even_part(shape_.batch, std::min(shape_.batch, most));
  }

  WeightGradientCall call_of(int64_t image, int64_t images) const {
    const auto division = [](int64_t divisor) { return FastDivision32(static_cast<int>(divisor)); };
    const PackedOutputGradient parts(shape_, images);
    return {
        shape_,
        positions_of(arguments_),
        parts,
        StreamK(tiles_, ceil_div(parts.pixels, PackedOutputGradient::kPixels), launcher_.multiprocessors()),
        StripOrder(static_cast<int>(shape_.out_height), static_cast<int>(shape_.out_width)),
        division(shape_.out_pixels()),
        division(shape_.kernel_w),
        division(shape_.group_channels() / kSliceChannels),
        division(shape_.offset_group_channels() / kSliceChannels),
        division(column_tiles_),
        division(row_tiles_),
        image,
        static_cast<int>(units_)};
  }

  void multiply(const WeightGradientCall& call, int64_t images, const Tensor& sums, const Tensor& parts) const {
    auto* packed = static_cast<T*>(parts.mutable_data_ptr());
    pack_output_gradient<T>(launcher_, grad_, shape_, call.first_image, images, packed);
    const int64_t first = call.first_image * shape_.height * shape_.width * shape_.channels;
    launcher_.launch(
        call.stream.blocks(),
        Body{
            call,
            static_cast<const T*>(arguments_.input.const_data_ptr()) + first,
            packed,
            static_cast<float*>(sums.mutable_data_ptr())});
  }

  template <typename To>
  void add(const WeightGradientCall& call, const Tensor& sums, const float* before, To* target) const {
    const PixelStrides strides = pixel_strides(arguments_.weight, false);  // the gradient is contiguous
    launcher_.run(
        call.stream.tiles() * Layout::kTileQuads,
        SumTiles<To, kRows, Body::kDepthParts>{
            call,
            static_cast<const float*>(sums.const_data_ptr()),
            before,
            target,
            strides.image,
            strides.channel,
            strides.pixel});
  }

  const DeformConvArguments& arguments_;
  const DeformConvShape& shape_;
  const Tensor& grad_;
  const Launcher launcher_;
  int64_t units_;  // of a weight group
  int64_t column_tiles_;
  int64_t row_tiles_;
  int64_t tiles_;
  int64_t sums_;  // numbers
};

// Whether RESNET_CUDA_FUSED_WEIGHT_GRADIENT_KERNEL, for measurements and tests, asks for the uniform kernel.
bool uniform_asked() {
  constexpr const char* kVariable = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT_KERNEL";
  const char* value = std::getenv(kVariable);
  if (value == nullptr || *value == '\0' || std::strcmp(value, "roles") == 0) {
    return false;
  }
  RESNET_CUDA_CHECK_ARGUMENT(
      std::strcmp(value, "uniform") == 0, "deform_conv2d", kVariable, join("'", value, "'"), "roles or uniform");
  return true;
}

template <typename T, bool kUniform>
Tensor run_rows(const DeformConvArguments& arguments, const Tensor& grad) {
  return arguments.shape.group_out_channels() > 128 ? WeightGradient<T, 256, kUniform>(arguments, grad).run()
                                                    : WeightGradient<T, 128, kUniform>(arguments, grad).run();
}

template <typename T>
Tensor run(const DeformConvArguments& arguments, const Tensor& grad) {
  return uniform_asked() ? run_rows<T, true>(arguments, grad) : run_rows<T, false>(arguments, grad);
}

std::optional<Tensor> weight_gradient(const DeformConvArguments& arguments, const Tensor& grad) {
  if (!fits(arguments) || !Launcher(arguments.input).runs_warpgroups()) {
    return std::nullopt;
  }
  if (grad.scalar_type() == ScalarType::BFloat16) {
    return run<torch::headeronly::BFloat16>(arguments, grad);
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  return run<torch::headeronly::Half>(arguments, grad);
#else
  return std::nullopt;
#endif
}

// When the library is loaded.
[[maybe_unused]] const bool kRegistered = [] {
  fused_weight_gradient = &weight_gradient;
  return true;
}();

}  // namespace
}  // namespace resnet_cuda
