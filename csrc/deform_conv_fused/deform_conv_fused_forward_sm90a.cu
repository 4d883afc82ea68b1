// The fused forward of the deformable convolution on CUDA, in bfloat16, float16 and TF32: packs the weight, then
// samples and multiplies in one kernel. Of a small batch several blocks share K, and a third kernel adds their sums.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "common/checks.h"
#include "common/fast_division.h"
#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_workspace.h"
#include "deform_conv_fused/cuda_forward_results.cuh"
#include "deform_conv_fused/cuda_forward_specialised.cuh"
#include "deform_conv_fused/cuda_forward_split_sums.cuh"
#include "deform_conv_fused/cuda_forward_tiles.h"
#include "deform_conv_fused/cuda_forward_uniform.cuh"
#include "deform_conv_fused/cuda_fused.h"

namespace resnet_cuda {
namespace {

// Whether its images are read or written in packs: those of a buffer are.
bool images_aligned(const Tensor& images) {
  return needs_buffer(images) || is_aligned(images.const_data_ptr(), kPackBytes);
}

// Images at once: all, or where they must be transposed as many as the workspace holds copies of.
int64_t images_at_once(const DeformConvArguments& arguments, const Tensor& output) {
  const int64_t bytes = buffer_bytes(arguments.input) + buffer_bytes(output);
  const int64_t batch = arguments.shape.batch;
  return bytes == 0 ? batch : even_part(batch, std::max<int64_t>(kWorkspaceBytes / 4 * 3 / bytes, 1));
}

bool fits(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, const Tensor& output, bool tf32) {
  const DeformConvShape& shape = arguments.shape;
  const ScalarType dtype = output.scalar_type();
  const auto bytes = static_cast<int64_t>(output.element_size());
  const int64_t pack = kPackBytes / bytes;
  const int64_t slice = device::kSwizzledRow / bytes;
  // A tile's 128 pixels may be of several images, whose corners are counted from the first one's beginning.
  const int64_t images = smaller(shape.batch, 127 / shape.out_pixels() + 2);
  return (dtype == ScalarType::BFloat16 || dtype == ScalarType::Half || (tf32 && dtype == ScalarType::Float)) &&
         images_aligned(arguments.input) && images_aligned(output) &&
         (!bias || is_aligned(bias->const_data_ptr(), 2 * bytes)) && shape.group_channels() % slice == 0 &&
         shape.offset_group_channels() % slice == 0 && shape.group_out_channels() % pack == 0 &&
         shape.out_pixels() < kMostInt32 - 128 &&
         images * shape.height * shape.width * (shape.channels / pack) < kMostInt32;
}

// What fused_tiles chooses, or RESNET_CUDA_FUSED_TILES, for measurements and tests: "64x128x3" are 64 pixels, 128
// output channels and three parts of K; "64x128x3u" the same by the uniform kernel.
FusedTiles tiles_for(const DeformConvShape& shape, int64_t pixels, int64_t steps, int multiprocessors) {
  constexpr const char* kVariable = "RESNET_CUDA_FUSED_TILES";
  const char* value = std::getenv(kVariable);
  if (value == nullptr || *value == '\0') {
    return fused_tiles(pixels, shape.groups, shape.group_out_channels(), steps, multiprocessors);
  }
  FusedTiles asked{};
  char uniform = ' ';
  char more;
  const int read = std::sscanf(value, "%dx%dx%d%c%c", &asked.pixels, &asked.columns, &asked.splits, &uniform, &more);
  asked.uniform = read == 4 && uniform == 'u';
  bool known = false;
  for (const FusedTileKind& kind : kFusedTileKinds) {
    known = known || (asked.pixels == kind.pixels && asked.columns == kind.columns && asked.splits > 0 &&
                      asked.splits <= smaller(kind.most_splits, steps));
  }
  RESNET_CUDA_CHECK_ARGUMENT(
      known && (read == 3 || asked.uniform),
      "deform_conv2d",
      kVariable,
      join("'", value, "'"),
      join("128x256x1, 128x128x1 or 64x128x1 to 64x128x", smaller(kMostSplits, steps), ", each also with u behind it"));
  return asked;
}

template <typename T, int kTilePixels, int kColumns, bool kUniform>
void run(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    int64_t most_images,
    int splits,
    const Tensor& output) {
  using Body = FusedForward<T, kTilePixels, kColumns, kUniform>;
  const DeformConvShape& shape = arguments.shape;
  const int64_t column_tiles = ceil_div(shape.group_out_channels(), kColumns);
  const int64_t slices = shape.group_channels() / device::kRowElementsOf<T>;
  const int64_t tiles = shape.groups * column_tiles;
  const PackedWeight layout{
      kColumns, static_cast<int>(column_tiles), static_cast<int>(slices), static_cast<int>(shape.taps())};
  const int64_t packs = tiles * layout.tile_parts() * (layout.part_bytes() / kPackBytes);
  const Tensor parts = empty_beside(output, {packs * Body::N}, output.scalar_type());
  auto* packed = static_cast<T*>(parts.mutable_data_ptr());
  const PixelStrides strides = pixel_strides(arguments.weight, is_dense_channels_last(arguments.weight));
  launcher.run(
      packs,
      PackWeight<T>{
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
  FusedCall call{
      shape,
      positions_of(arguments),
      layout,
      StripOrder(static_cast<int>(shape.out_height), static_cast<int>(shape.out_width)),
      FastDivision32(static_cast<int>(shape.out_pixels())),
      FastDivision32(static_cast<int>(shape.kernel_w)),
      FastDivision32(static_cast<int>(tiles)),
      FastDivision32(static_cast<int>(column_tiles)),
      FastDivision32(splits),
      FastDivision32(static_cast<int>(shape.offset_group_channels()) / device::kRowElementsOf<T>),
      0,
      0};
  const auto* added = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  const SourceImages<T> inputs(launcher, arguments.input, most_images);
  const TargetImages<T> outputs(launcher, output, most_images);
  std::optional<Tensor> sums;
  if (splits > 1) {
    sums = empty_beside(output, {splits, most_images * shape.out_pixels() * shape.out_channels}, ScalarType::Float);
  }
  auto* split_sums = sums ? static_cast<float*>(sums->mutable_data_ptr()) : nullptr;
  for (int64_t image = 0; image < shape.batch; image += most_images) {
    const int64_t images = smaller(most_images, shape.batch - image);
    const T* input = inputs.read(image, images);
    T* rows = outputs.begin(image);
    call.first_image = image;
    call.pixels = images * shape.out_pixels();
    launcher.launch(
        ceil_div(call.pixels, Body::kPixels) * tiles * splits,
        Body{call, input, packed, added, rows, split_sums, relu});
    if (sums) {
      using Sum = SumSplits<T>;
      const int64_t elements = call.pixels * shape.out_channels;
      const FastDivision row_pairs(shape.out_channels / Sum::N);
      launcher.run(elements / Sum::N, Sum{split_sums, added, rows, elements, splits, row_pairs, relu});
    }
    outputs.finish(image, images);
  }
}

template <typename T, bool kUniform>
void run_tiles(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    int64_t most_images,
    const FusedTiles& tiles,
    const Tensor& output) {
  if (tiles.columns == 256) {
    run<T, 128, 256, kUniform>(launcher, arguments, bias, relu, most_images, tiles.splits, output);
  } else if (tiles.pixels == 128) {
    run<T, 128, 128, kUniform>(launcher, arguments, bias, relu, most_images, tiles.splits, output);
  } else {
    run<T, 64, 128, kUniform>(launcher, arguments, bias, relu, most_images, tiles.splits, output);
  }
}

template <typename T>
void run_kind(
    const Launcher& launcher,
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  const DeformConvShape& shape = arguments.shape;
  const int64_t images = images_at_once(arguments, output);
  const int64_t steps = shape.taps() * (shape.group_channels() / device::kRowElementsOf<T>);
  const FusedTiles tiles = tiles_for(shape, images * shape.out_pixels(), steps, launcher.multiprocessors());
  if (tiles.uniform) {
    run_tiles<T, true>(launcher, arguments, bias, relu, images, tiles, output);
  } else {
    run_tiles<T, false>(launcher, arguments, bias, relu, images, tiles, output);
  }
}

bool forward(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    bool tf32,
    const Tensor& output) {
  if (!fits(arguments, bias, output, tf32)) {
    return false;
  }
  const Launcher launcher(arguments.input);
  if (!launcher.runs_warpgroups()) {
    return false;
  }
  if (output.scalar_type() == ScalarType::BFloat16) {
    run_kind<torch::headeronly::BFloat16>(launcher, arguments, bias, relu, output);
    return true;
  }
  if (output.scalar_type() == ScalarType::Float) {
    run_kind<float>(launcher, arguments, bias, relu, output);
    return true;
  }
#if !defined(RESNET_CUDA_FLOAT32_ONLY)  // by the tests of planted bugs: one dtype compiles faster
  run_kind<torch::headeronly::Half>(launcher, arguments, bias, relu, output);
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
