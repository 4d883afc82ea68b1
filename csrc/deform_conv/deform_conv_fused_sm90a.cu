// The fused forward of the deformable convolution on CUDA, in bfloat16 and float16: packs the weight, then samples and
// multiplies in one kernel. Of a small batch several blocks share K, and a third kernel adds their sums.

#include <cstdio>
#include <cstdlib>

#include "common/checks.h"
#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_fused.h"
#include "deform_conv/cuda_fused_forward.cuh"
#include "deform_conv/cuda_fused_tiles.h"
#include "deform_conv/cuda_split_sums.cuh"

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

// What fused_tiles chooses, or RESNET_CUDA_FUSED_TILES, for measurements and tests: "64x128x3" are 64 pixels, 128
// output channels and three parts of K.
FusedTiles tiles_for(const DeformConvShape& shape, int64_t pixels, int64_t steps, int multiprocessors) {
  constexpr const char* kVariable = "RESNET_CUDA_FUSED_TILES";
  const char* value = std::getenv(kVariable);
  if (value == nullptr || *value == '\0') {
    return fused_tiles(pixels, shape.groups, shape.group_out_channels(), steps, multiprocessors);
  }
  FusedTiles asked{};
  char more;
  bool known = false;
  if (std::sscanf(value, "%dx%dx%d%c", &asked.pixels, &asked.columns, &asked.splits, &more) == 3) {
    for (const FusedTileKind& kind : kFusedTileKinds) {
      known = known || (asked.pixels == kind.pixels && asked.columns == kind.columns && asked.splits > 0 &&
                        asked.splits <= smaller(kind.most_splits, steps));
    }
  }
  RESNET_CUDA_CHECK_ARGUMENT(
      known,
      "deform_conv2d",
      kVariable,
      join("'", value, "'"),
      join("128x256x1, 128x128x1 or 64x128x1 to 64x128x", smaller(kMostSplits, steps)));
  return asked;
}

template <typename T, int kTilePixels, int kColumns>
void run(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    int splits,
    const Tensor& output) {
  using Body = FusedForward<T, kTilePixels, kColumns>;
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
      FastDivision32(splits),
      pixels,
      static_cast<int>(shape.offset_group_channels()) / Body::N};
  const auto* added = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  auto* rows = static_cast<T*>(output.mutable_data_ptr());
  std::optional<Tensor> sums;
  if (splits > 1) {
    sums = empty_beside(output, {splits, output.numel()}, ScalarType::Float);
  }
  auto* split_sums = sums ? static_cast<float*>(sums->mutable_data_ptr()) : nullptr;
  launcher.launch(
      ceil_div(pixels, Body::kPixels) * tiles * splits,
      Body{call, static_cast<const T*>(arguments.input.const_data_ptr()), packed, added, rows, split_sums, relu});
  if (sums) {
    using Sum = SumSplits<T>;
    const FastDivision row_pairs(shape.out_channels / Sum::N);
    launcher.run(output.numel() / Sum::N, Sum{split_sums, added, rows, output.numel(), splits, row_pairs, relu});
  }
}

template <typename T>
void run_tiles(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  const DeformConvShape& shape = arguments.shape;
  const int64_t steps = shape.taps() * (shape.group_channels() / kSliceChannels);
  const FusedTiles tiles = tiles_for(shape, shape.batch * shape.out_pixels(), steps, launcher.multiprocessors());
  if (tiles.columns == 256) {
    run<T, 128, 256>(launcher, arguments, bias, relu, tiles.splits, output);
  } else if (tiles.pixels == 128) {
    run<T, 128, 128>(launcher, arguments, bias, relu, tiles.splits, output);
  } else {
    run<T, 64, 128>(launcher, arguments, bias, relu, tiles.splits, output);
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
    run_tiles<torch::headeronly::BFloat16>(launcher, arguments, bias, relu, output);
    return true;
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  run_tiles<torch::headeronly::Half>(launcher, arguments, bias, relu, output);
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
