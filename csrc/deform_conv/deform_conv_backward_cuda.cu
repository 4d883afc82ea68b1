// Backward of the deformable convolution on CUDA, chunk by chunk:
// 1. the columns' gradient, by ATen's matrix product;
// 2. from it the input's gradient (col2im by lists);
// 3. the gradients of offsets and masks; this kernel overwrites the columns' gradient with the columns;
// 4. from the columns the weight's gradient, by another product.
// Where they are asked for and fit, fused kernels replace 1 and 3, and 4. Only the gradients that are needed are
// computed; there are no floating-point atomics.

#include <algorithm>

#include "common/checks.h"
#include "common/torch_stable.h"
#include "deform_conv/cuda_backward_needs.cuh"
#include "deform_conv/cuda_bias_sums.cuh"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv/cuda_gather_input.cuh"
#include "deform_conv/cuda_gemm_operands.h"
#include "deform_conv/cuda_index_limits.h"
#include "deform_conv/cuda_list_storage.cuh"
#include "deform_conv/cuda_position_gradients.cuh"
#include "deform_conv/cuda_sample_columns.cuh"
#include "deform_conv/cuda_weight_sums.cuh"
#include "deform_conv/cuda_workspace.h"
#include "deform_conv_fused/cuda_fused.h"

namespace resnet_cuda {
namespace {

// Index: element. Rounds a running total and makes it 0 for the next image.
template <typename T, typename Real>
struct TakeTotal {
  Real* total;
  T* target;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    target[index] = static_cast<T>(total[index]);
    total[index] = Real(0);
  }
};

template <typename T, int N>
class Backward {
  using Real = RealOf<T>;
  using Sample = SampleColumns<T, Real, N>;
  using AtPositions = PositionGradients<T, Real, N>;

 public:
  Backward(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvNeeds& needs)
      : arguments_(arguments),
        shape_(arguments.shape),
        grad_(grad),
        needs_(needs),
        launcher_(arguments.input),
        fused_(fused_functions()),
        sizes_(chunk_sizes(shape_, workspace_needs())),
        weight_(fused_ != nullptr ? arguments.weight : column_ordered<T>(launcher_, arguments.weight, shape_)) {
    const auto beside = [&](const Tensor& like) {
      return empty_beside(grad, size_of(like), like.scalar_type(), output_memory_format(like));
    };
    if (needs.input) {
      gradients_.input = beside(arguments.input);
    }
    if (needs.offset) {
      gradients_.offset = beside(arguments.offset);
    }
    if (needs.mask) {
      gradients_.mask = beside(*arguments.mask);
    }
    if (needs.bias) {
      gradients_.bias = empty_beside(grad, {shape_.out_channels}, grad.scalar_type());
      bias_sums_.emplace(launcher_, grad, shape_.out_channels);
    }
  }

  DeformConvGradients run() {
    run_chunks();
    if (needs_.weight) {
      gradients_.weight = weight_gradient();
    }
    if (bias_sums_) {
      bias_sums_->finish(*gradients_.bias);
    }
    return gradients_;
  }

 private:
  // The fused columns' gradient; null where the call does not use it.
  const FusedColumnGradientFunctions* fused_functions() const {
    const auto find = [&] {
      return fused_column_gradient != nullptr && fused_column_gradient->fits(launcher_, arguments_);
    };
    const bool fits = run_fused_if_asked("RESNET_CUDA_FUSED_COLUMN_GRADIENT", find, needs_column_gradient());
    return fits ? fused_column_gradient : nullptr;
  }

  WorkspaceNeeds workspace_needs() const {
    const int64_t copies = buffer_bytes(grad_) + 2 * buffer_bytes(arguments_.input);
    WorkspaceNeeds needs = backward_needs<T, Real>(shape_, copies);
    if (fused_ != nullptr) {
      needs.per_call += fused_->call_bytes(shape_);
      needs.per_pixel += fused_->pixel_bytes(shape_);
    }
    return needs;
  }

  ScalarType real_dtype() const {
    return compute_dtype(grad_.scalar_type());
  }

  bool needs_positions() const {
    return needs_.offset || needs_.mask;
  }

  PositionGradientPlanes position_planes() const {
    return {
        plane_of(gradients_.offset, real_dtype(), "gradient for offset"),
        plane_of(gradients_.mask, real_dtype(), "gradient for mask")};
  }

  bool needs_column_gradient() const {
    return needs_positions() || needs_.input;
  }

  // Whether the input is read.
  bool samples() const {
    return needs_positions() || needs_.weight || (fused_ != nullptr && needs_.input);
  }

  // Whether the columns' storage is used: for the columns, or for their gradient.
  bool needs_columns() const {
    return needs_.input || needs_.weight || (needs_positions() && fused_ == nullptr);
  }

  // Images in the layout that the kernels read and write.
  struct Images {
    SourceImages<T> grads;
    std::optional<SourceImages<T>> inputs;
    std::optional<TargetImages<T>> grad_inputs;
  };

  bool whole_images() const {
    return sizes_.rows == shape_.out_height;
  }

  void run_chunks() {
    Images images{SourceImages<T>(launcher_, grad_, sizes_.images), std::nullopt, std::nullopt};
    if (samples()) {
      images.inputs.emplace(launcher_, arguments_.input, sizes_.images);
    }
    if (needs_.input) {
      images.grad_inputs.emplace(launcher_, *gradients_.input, sizes_.images);
    }
    allocate();
    for (int64_t image = 0; image < shape_.batch; image += sizes_.images) {
      run_images(images, image, smaller(sizes_.images, shape_.batch - image));
    }
  }

  // What the chunks share.
  void allocate() {
    const int64_t most_pixels = sizes_.images * sizes_.rows * shape_.out_width;
    if (needs_.input) {
      list_storage_.emplace(grad_, shape_, sizes_.list_images, sizes_.rows);
      if (!whole_images()) {
        input_total_ = zeros_beside(grad_, {shape_.height * shape_.width * shape_.channels}, real_dtype());
      }
    }
    if (fused_ != nullptr && needs_column_gradient()) {
      column_gradient_ = fused_->make(launcher_, arguments_, most_pixels);
    }
    if (needs_columns()) {
      columns_ = empty_beside(grad_, {most_pixels * shape_.taps() * shape_.channels}, grad_.scalar_type());
    }
    if (needs_.weight) {
      if (!whole_images() || sizes_.images < shape_.batch) {
        weight_sums_.emplace(launcher_, grad_, real_dtype(), weight_.numel());
      } else {
        weight_product_ = empty_beside(grad_, {weight_.numel()}, grad_.scalar_type());
      }
    }
  }

  // One chunk, or those of one image's rows.
  void run_images(Images& of, int64_t image, int64_t images) {
    const T* rows = of.grads.read(image, images);
    const T* input = of.inputs ? of.inputs->read(image, images) : nullptr;
    T* grad_input = of.grad_inputs ? of.grad_inputs->begin(image) : nullptr;
    if (bias_sums_) {
      bias_sums_->add(rows, images * shape_.out_pixels());
    }
    if (!needs_column_gradient() && !needs_.weight) {
      return;
    }
    if (needs_.input && whole_images() && image % sizes_.list_images == 0) {
      const int64_t list_images = smaller(sizes_.list_images, shape_.batch - image);
      build_lists(chunk_of(shape_, image, list_images, 0, shape_.out_height));
    }
    for (int64_t row = 0; row < shape_.out_height; row += sizes_.rows) {
      const Chunk chunk = chunk_of(shape_, image, images, row, smaller(sizes_.rows, shape_.out_height - row));
      const T* chunk_rows = rows + row * shape_.out_width * shape_.out_channels;
      if (needs_.input && !whole_images()) {
        build_lists(chunk);
      }
      run_chunk(chunk, chunk_rows, input, whole_images() ? grad_input : nullptr);
    }
    if (of.grad_inputs) {
      if (!whole_images()) {
        launcher_.run(
            shape_.height * shape_.width * shape_.channels,
            TakeTotal<T, Real>{static_cast<Real*>(input_total_->mutable_data_ptr()), grad_input});
      }
      of.grad_inputs->finish(image, images);
    }
  }

  void run_chunk(const Chunk& chunk, const T* rows, const T* input, T* grad_input) {
    const auto columns = [&] { return column_matrices(*columns_, chunk); };
    if (column_gradient_) {
      column_gradient_({chunk, rows, input, position_planes(), needs_.input ? column_data() : nullptr});
    } else if (needs_column_gradient()) {
      batched_product(row_matrices(rows, chunk, grad_), weight_matrices(weight_, shape_), columns());
    }
    if (needs_.input) {
      gather_input(chunk, grad_input);
    }
    // Overwrites the columns' gradient.
    if (needs_positions() && !column_gradient_) {
      const TapBlocks blocks = position_blocks(launcher_, chunk, N, AtPositions::kBlocksPerMultiprocessor);
      launcher_.launch(
          blocks.blocks,
          AtPositions{
              chunk,
              positions_of(arguments_),
              position_planes(),
              input,
              column_data(),
              needs_.weight,
              blocks.division});
    } else if (needs_.weight) {
      const TapBlocks blocks = sampling_blocks(launcher_, chunk, N, N * sizeof(T));
      launcher_.launch(blocks.blocks, Sample{chunk, positions_of(arguments_), input, column_data(), blocks.division});
    }
    if (needs_.weight) {
      const Tensor product = weight_sums_ ? weight_sums_->next(shape_) : weight_matrices(*weight_product_, shape_);
      batched_product(transposed_row_matrices(rows, chunk, grad_), columns(), product);
    }
  }

  T* column_data() const {
    return static_cast<T*>(columns_->mutable_data_ptr());
  }

  void build_lists(const Chunk& chunk) {
    lists_ = list_storage_->build(launcher_, chunk, positions_of(arguments_));
    first_list_image_ = chunk.first_image;
  }

  // Writes `grad_input` or, where that is null, adds to the image's running total.
  void gather_input(const Chunk& chunk, T* grad_input) {
    const InputGradient<T, Real> target{
        grad_input, grad_input ? nullptr : static_cast<Real*>(input_total_->mutable_data_ptr())};
    launch_gather<T, Real, N>(
        launcher_, chunk, column_data(), *lists_, static_cast<int>(chunk.first_image - first_list_image_), target);
  }

  // [O, C/groups, kh, kw] from the order of the columns.
  Tensor weight_gradient() const {
    const std::vector<int64_t> size = size_of(arguments_.weight);
    if (weight_sums_) {
      const Tensor gradient = empty_beside(grad_, size, grad_.scalar_type());
      weight_sums_->finish(shape_, gradient);
      return gradient;
    }
    if (shape_.taps() == 1 || shape_.group_channels() == 1) {
      return torch::stable::view(*weight_product_, size);
    }
    const Tensor gradient = empty_beside(grad_, size, grad_.scalar_type());
    reorder_taps<true>(
        launcher_,
        static_cast<const T*>(weight_product_->const_data_ptr()),
        static_cast<T*>(gradient.mutable_data_ptr()),
        shape_);
    return gradient;
  }

  const DeformConvArguments& arguments_;
  const DeformConvShape& shape_;
  const Tensor& grad_;
  const DeformConvNeeds needs_;
  const Launcher launcher_;
  const FusedColumnGradientFunctions* const fused_;
  const ChunkSizes sizes_;
  const Tensor weight_;  // [O, taps, C/groups]; where the columns' gradient is fused, as it was given
  DeformConvGradients gradients_;
  std::optional<ListStorage<Real>> list_storage_;
  std::optional<InputLists<Real>> lists_;
  int64_t first_list_image_ = 0;
  std::optional<BiasSums<T, Real>> bias_sums_;
  std::optional<Tensor> columns_;
  ColumnGradientFunction column_gradient_;  // empty where the columns' gradient is not fused
  std::optional<Tensor> input_total_;       // [H, W, C]
  // Only one of the two: [O, taps, C/groups] where the call is one chunk; else float32 sums over the chunks.
  std::optional<Tensor> weight_product_;
  std::optional<WeightSums<T, Real>> weight_sums_;
};

}  // namespace

FusedWeightGradientFunction fused_weight_gradient = nullptr;
const FusedColumnGradientFunctions* fused_column_gradient = nullptr;

DeformConvGradients
deform_conv2d_backward_kernel(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvNeeds& needs) {
  check_index_limits(arguments.shape);
  DeformConvGradients gradients;
  DeformConvNeeds rest = needs;
  std::optional<Tensor> weight;
  if (needs.weight) {
    rest.weight = !run_fused_if_asked("RESNET_CUDA_FUSED_WEIGHT_GRADIENT", [&] {
      weight = fused_weight_gradient != nullptr ? fused_weight_gradient(arguments, grad) : std::nullopt;
      return weight.has_value();
    });
  }
  if (rest.input || rest.weight || rest.offset || rest.mask || rest.bias) {
    dispatch_dtype(grad.scalar_type(), [&](auto element) {
      using T = decltype(element);
      dispatch_pack<T>(arguments.shape, arguments.input, [&](auto pack) {
        gradients = Backward<T, decltype(pack)::value>(arguments, grad, rest).run();
      });
    });
  }
  if (weight) {
    gradients.weight = weight;
  }
  return gradients;
}

}  // namespace resnet_cuda
