// Forward of the deformable convolution on CUDA: im2col with sampling, a chunk of pixels at a time, then ATen's matrix
// product straight into the output; or, where that is asked for and fits, the fused kernel. Registers CUDA.

#include "common/checks.h"
#include "common/fast_division.h"
#include "common/registration.h"
#include "common/torch_stable.h"
#include "common/transpose.cuh"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_epilogue.cuh"
#include "deform_conv/cuda_gemm_operands.h"
#include "deform_conv/cuda_index_limits.h"
#include "deform_conv/cuda_sample_columns.cuh"
#include "deform_conv/cuda_workspace.h"
#include "deform_conv_fused/cuda_fused.h"

namespace resnet_cuda {
namespace {

// Index: pack of [rows, O]. Adds the bias, if there is one, to every row; then clamps at 0 where asked.
template <typename T, int N>
struct AddBias {
  const T* bias;
  T* rows;
  FastDivision row_packs;  // of O elements
  bool relu;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    using Real = RealOf<T>;
    Real value[N];
    unpack(load_pack<N>(rows + index * N), value);
    add_bias(bias != nullptr ? bias + row_packs.remainder(index) * N : nullptr, relu, value);
    store_pack(rows + index * N, pack_of<T, N>(value));
  }
};

// `rows` are aligned, being memory of their own.
template <typename T>
void add_bias_to_rows(
    const Launcher& launcher,
    const T* bias,
    bool relu,
    T* rows,
    int64_t row_count,
    int64_t out_channels) {
  constexpr int kWide = kPackBytes / sizeof(T);
  const int64_t elements = row_count * out_channels;
  if (out_channels % kWide == 0 && is_aligned(bias, kPackBytes)) {
    launcher.run(elements / kWide, AddBias<T, kWide>{bias, rows, FastDivision(out_channels / kWide), relu});
  } else {
    launcher.run(elements, AddBias<T, 1>{bias, rows, FastDivision(out_channels), relu});
  }
}

template <typename T, int N>
void forward(const DeformConvArguments& arguments, const std::optional<Tensor>& bias, bool relu, const Tensor& output) {
  using Real = RealOf<T>;
  using Sample = SampleColumns<T, Real, N>;
  const DeformConvShape& shape = arguments.shape;
  const Launcher launcher(arguments.input);
  const int64_t pixel_bytes = shape.taps() * shape.channels * static_cast<int64_t>(sizeof(T));
  const int64_t image_bytes = buffer_bytes(arguments.input) + buffer_bytes(output);
  const ChunkSizes sizes = chunk_sizes(shape, {weight_bytes(arguments.weight), image_bytes, pixel_bytes, 0});
  const int64_t most_pixels = sizes.images * sizes.rows * shape.out_width;
  const Tensor columns = empty_beside(output, {most_pixels * shape.taps() * shape.channels}, output.scalar_type());
  const Tensor weight = column_ordered<T>(launcher, arguments.weight, shape);
  const Tensor weight_columns = transposed_weight_matrices(weight, shape);
  const SourceImages<T> inputs(launcher, arguments.input, sizes.images);
  const TargetImages<T> outputs(launcher, output, sizes.images);
  const Positions positions = positions_of(arguments);

  for (int64_t image = 0; image < shape.batch; image += sizes.images) {
    const int64_t images = smaller(sizes.images, shape.batch - image);
    const T* input = inputs.read(image, images);
    T* rows = outputs.begin(image);
    for (int64_t row = 0; row < shape.out_height; row += sizes.rows) {
      const Chunk chunk = chunk_of(shape, image, images, row, smaller(sizes.rows, shape.out_height - row));
      const TapBlocks blocks = sampling_blocks(launcher, chunk, N, N * sizeof(T));
      launcher.launch(
          blocks.blocks, Sample{chunk, positions, input, static_cast<T*>(columns.mutable_data_ptr()), blocks.division});
      batched_product(
          column_matrices(columns, chunk),
          weight_columns,
          row_matrices(rows + row * shape.out_width * shape.out_channels, chunk, output));
    }
    if (bias || relu) {
      const T* added = bias ? bias->const_data_ptr<T>() : nullptr;
      add_bias_to_rows(launcher, added, relu, rows, images * shape.out_pixels(), shape.out_channels);
    }
    outputs.finish(image, images);
  }
}

}  // namespace

FusedForwardFunction fused_forward = nullptr;

void transpose_images(
    const Launcher& launcher,
    const void* source,
    void* target,
    size_t element_bytes,
    int64_t images,
    int64_t rows,
    int64_t columns) {
  const auto run = [&](auto word) {
    using Word = decltype(word);
    transpose(launcher, static_cast<const Word*>(source), static_cast<Word*>(target), images, rows, columns);
  };
  if (element_bytes == sizeof(uint16_t)) {
    run(uint16_t{});
  } else if (element_bytes == sizeof(uint32_t)) {
    run(uint32_t{});
  } else {
    run(uint64_t{});
  }
}

void deform_conv2d_kernel(
    const DeformConvArguments& arguments,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  check_index_limits(arguments.shape);
  // The stable ABI does not show torch's own flag for TF32, which decides for the product of the columns.
  const bool done = run_fused_if_asked("RESNET_CUDA_FUSED_FORWARD", [&](bool tf32) {
    return fused_forward != nullptr && fused_forward(arguments, bias, relu, tf32, output);
  });
  if (done) {
    return;
  }
  dispatch_dtype(output.scalar_type(), [&](auto element) {
    using T = decltype(element);
    dispatch_pack<T>(arguments.shape, arguments.input, [&](auto pack) {
      forward<T, decltype(pack)::value>(arguments, bias, relu, output);
    });
  });
}

}  // namespace resnet_cuda

RESNET_CUDA_REGISTER_CUDA(m) {
  m.impl("deform_conv2d", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d));
  m.impl("deform_conv2d_relu", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d_relu));
  m.impl("deform_conv2d_backward", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d_backward));
}
