// The fused forward of the deformable convolution on CUDA, in bfloat16 and float16: packs the weight, then samples and
// multiplies in one kernel.

#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_fused.h"
#include "deform_conv/cuda_fused_forward.cuh"

namespace resnet_cuda {
namespace {

constexpr int64_t kMostInt = (int64_t{1} << 31) - 1;

bool aligned_to(const Tensor& tensor, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % bytes == 0;
}

bool fits(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, const Tensor& output) {
  const DeformConvShape& shape = arguments.shape;
  const ScalarType dtype = output.scalar_type();
  constexpr int kPack = kPackBytes / 2;
  // A tile's 128 pixels may be of several images, whose corners are counted from the first one's beginning.
  const int64_t images = smaller(shape.batch, 127 / shape.out_pixels() + 2);
  return (dtype == ScalarType::BFloat16 || dtype == ScalarType::Half) && is_dense_channels_last(arguments.input) &&
         is_dense_channels_last(output) && aligned_to(arguments.input, kPackBytes) && aligned_to(output, kPackBytes) &&
         (!bias || aligned_to(*bias, 4)) && shape.group_channels() % kSliceChannels == 0 &&
         shape.offset_group_channels() % kSliceChannels == 0 && shape.group_out_channels() % kPack == 0 &&
         shape.out_pixels() < kMostInt - 128 &&
         images * shape.height * shape.width * (shape.channels / kPack) < kMostInt;
}

template <typename T, int kColumns>
void run(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  using Body = FusedForward<T, kColumns>;
  const DeformConvShape& shape = arguments.shape;
  const int64_t column_tiles = ceil_div(shape.group_out_channels(), kColumns);
  const int64_t slices = shape.group_channels() / kSliceChannels;
  const int64_t tiles = shape.groups * column_tiles;
  const WeightParts layout{
      kColumns, static_cast<int>(column_tiles), static_cast<int>(slices), static_cast<int>(shape.taps())};
  const int64_t packs = tiles * layout.tile_parts() * (layout.part_bytes() / kPackBytes);
  const Tensor parts = empty_beside(output, {packs * Body::N}, output.scalar_type());
  auto* packed = static_cast<T*>(parts.mutable_data_ptr());
  const PixelStrides strides = pixel_strides(arguments.weight, is_dense_channels_last(arguments.weight));
  launcher.run(
      packs,
      PackWeightParts<T>{
          static_cast<const T*>(arguments.weight.const_data_ptr()),
          packed,
          layout,
          strides.image,
          strides.channel,
          strides.pixel,
          static_cast<int>(shape.group_out_channels()),
          FastDivision(shape.taps()),
          FastDivision(slices),
          FastDivision(column_tiles),
          FastDivision(layout.part_bytes() / kPackBytes)});
  const int64_t pixels = shape.batch * shape.out_pixels();
  const FusedCall call{
      shape,
      positions_of(arguments),
      layout,
      StripOrder(static_cast<int>(shape.out_height), static_cast<int>(shape.out_width)),
      FastDivision32(static_cast<int>(shape.out_pixels())),
      FastDivision32(static_cast<int>(shape.kernel_w)),
      FastDivision32(static_cast<int>(tiles)),
      FastDivision32(static_cast<int>(column_tiles)),
      pixels,
      static_cast<int>(shape.offset_group_channels()) / Body::N};
  launcher.launch(
      ceil_div(pixels, Body::kPixels) * tiles,
      Body{
          call,
          static_cast<const T*>(arguments.input.const_data_ptr()),
          packed,
          bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr,
          static_cast<T*>(output.mutable_data_ptr()),
          relu});
}

template <typename T>
void run_columns(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  if (arguments.shape.group_out_channels() > 128) {
    run<T, 256>(launcher, arguments, bias, relu, output);
  } else {
    run<T, 128>(launcher, arguments, bias, relu, output);
  }
}

bool forward(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, bool relu, const Tensor& output) {
  if (!fits(arguments, bias, output)) {
    return false;
  }
  const Launcher launcher(arguments.input);
  if (!launcher.runs_warpgroups()) {
    return false;
  }
  if (output.scalar_type() == ScalarType::BFloat16) {
    run_columns<torch::headeronly::BFloat16>(launcher, arguments, bias, relu, output);
    return true;
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  run_columns<torch::headeronly::Half>(launcher, arguments, bias, relu, output);
  return true;
#else
  return false;
#endif
}

// When the library is loaded.
[[maybe_unused]] const bool kRegistered = [] {
  fused_forward = &forward;
  return true;
}();

}  // namespace
}  // namespace resnet_cuda
