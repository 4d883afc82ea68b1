// FrozenBatchNorm + residual + ReLU: argument checks, layout and allocation, once for every device.

#include "frozen_bn/frozen_bn.h"

#include "common/checks.h"

namespace resnet_cuda {
namespace {

constexpr const char* kOp = "frozen_bn_relu";
constexpr const char* kLayer = "frozen_batch_norm";

void check_per_channel(
    const char* op,
    const char* name,
    const Tensor& constant,
    const Tensor& input,
    const char* input_name) {
  RESNET_CUDA_CHECK_ARGUMENT(
      constant.dim() == 1 && constant.size(0) == input.size(1),
      op,
      name,
      shape_of(constant),
      join("(C,) = (", input.size(1), ",), the channels of ", input_name));
}

void check_constant(const char* name, const Tensor& constant, const Tensor& input, const char* input_name) {
  check_beside(kOp, name, constant, input, ScalarType::Float, ScalarType::Double, input_name);
  check_per_channel(kOp, name, constant, input, input_name);
}

// A buffer of the layer: of any supported dtype, since a model may have been cast as a whole.
void check_buffer(const char* name, const Tensor& buffer, const Tensor& input) {
  const auto dtype = buffer.scalar_type();
  check_beside(kLayer, name, buffer, input, dtype, dtype);
  check_supported_dtype(kLayer, name, dtype);
  check_per_channel(kLayer, name, buffer, input, "input");
}

void check_same_shape(
    const char* op,
    const char* name,
    const Tensor& tensor,
    const Tensor& input,
    const char* input_name = "input") {
  check_beside(op, name, tensor, input, input.scalar_type(), input.scalar_type(), input_name);
  const auto sizes = input.sizes();
  RESNET_CUDA_CHECK_ARGUMENT(
      has_shape(tensor, {sizes[0], sizes[1], sizes[2], sizes[3]}),
      op,
      name,
      shape_of(tensor),
      join("of ", input_name, "'s shape, ", tuple_text(sizes.data(), 4)));
}

Tensor dense_constant(const Tensor& constant, const Tensor& input) {
  return as_dense(constant, compute_dtype(input.scalar_type()), MemoryFormat::Contiguous);
}

FrozenBnConstants checked_constants(
    const Tensor& input,
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual) {
  check_input(kOp, input);
  check_constant("scale", scale, input, "input");
  check_constant("shift", shift, input, "input");
  if (residual) {
    check_same_shape(kOp, "residual", *residual, input);
  }
  return {dense_constant(scale, input), dense_constant(shift, input), std::nullopt, std::nullopt};
}

FrozenBnConstants checked_buffers(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& bias,
    const Tensor& running_mean,
    const Tensor& running_var,
    double eps,
    const std::optional<Tensor>& residual,
    bool need_scale) {
  check_input(kLayer, input);
  check_buffer("weight", weight, input);
  check_buffer("bias", bias, input);
  check_buffer("running_mean", running_mean, input);
  check_buffer("running_var", running_var, input);
  if (residual) {
    check_same_shape(kLayer, "residual", *residual, input);
  }
  std::optional<Tensor> scale;
  if (need_scale) {
    scale = empty_beside(input, {input.size(1)}, compute_dtype(input.scalar_type()));
  }
  return {
      dense_constant(weight, input),
      dense_constant(bias, input),
      FrozenBnConstants::Statistics{dense_constant(running_mean, input), dense_constant(running_var, input), eps},
      scale};
}

FrozenBnLayout layout_of(const Tensor& tensor, MemoryFormat format) {
  const bool channels_last = format == MemoryFormat::ChannelsLast;
  return {tensor.numel(), tensor.size(1), channels_last ? 1 : tensor.size(2) * tensor.size(3)};
}

// `residual` dense like `input`. In place it is cloned where it partly overlaps `input`: the pass would overwrite
// elements before it reads them.
std::optional<Tensor>
dense_residual(const std::optional<Tensor>& residual, const Tensor& input, MemoryFormat format, bool in_place) {
  if (!residual) {
    return std::nullopt;
  }
  Tensor dense = as_dense(*residual, format);
  const auto* own = static_cast<const char*>(dense.const_data_ptr());
  const auto* other = static_cast<const char*>(input.const_data_ptr());
  const int64_t bytes = input.numel() * static_cast<int64_t>(input.element_size());
  if (in_place && own != other && own < other + bytes && other < own + bytes) {
    return torch::stable::clone(dense);
  }
  return dense;
}

void run(
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    MemoryFormat format,
    const Tensor& output) {
  if (input.numel() == 0) {
    return;  // the scale stays unwritten: a backward without elements does not read it
  }
  const bool in_place = input.const_data_ptr() == output.const_data_ptr();
  frozen_bn_relu_kernel(
      layout_of(input, format), input, constants, dense_residual(residual, input, format, in_place), relu, output);
}

Tensor scale_or_none(const FrozenBnConstants& constants, const Tensor& input) {
  return constants.scale ? *constants.scale : empty_beside(input, {0}, compute_dtype(input.scalar_type()));
}

Tensor out_of_place(
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu) {
  const MemoryFormat format = output_memory_format(input);
  Tensor output = empty_beside(input, size_of(input), input.scalar_type(), format);
  run(as_dense(input, format), constants, residual, relu, format, output);
  return output;
}

void in_place(
    const char* op,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu) {
  // Strides of 0 are allowed in an empty tensor: an empty channels_last one has them.
  for (int64_t i = 0; i < 4; ++i) {
    RESNET_CUDA_CHECK_ARGUMENT(
        input.size(i) <= 1 || input.stride(i) != 0 || input.numel() == 0,
        op,
        "input",
        "an expanded tensor, of which several elements are one",
        "without overlap to be overwritten");
  }
  const MemoryFormat format = output_memory_format(input);
  const Tensor dense = as_dense(input, format);
  run(dense, constants, residual, relu, format, dense);
  if (dense.const_data_ptr() != input.const_data_ptr()) {
    Tensor target = input;
    torch::stable::copy_(target, dense);
  }
}

}  // namespace

Tensor frozen_bn_relu(
    const Tensor& input,
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual,
    bool relu) {
  return out_of_place(input, checked_constants(input, scale, shift, residual), residual, relu);
}

void frozen_bn_relu_(
    const Tensor& input,
    const Tensor& scale,
    const Tensor& shift,
    const std::optional<Tensor>& residual,
    bool relu) {
  in_place(kOp, input, checked_constants(input, scale, shift, residual), residual, relu);
}

std::tuple<Tensor, Tensor> frozen_batch_norm(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& bias,
    const Tensor& running_mean,
    const Tensor& running_var,
    double eps,
    const std::optional<Tensor>& residual,
    bool relu,
    bool need_scale) {
  const auto constants = checked_buffers(input, weight, bias, running_mean, running_var, eps, residual, need_scale);
  return {out_of_place(input, constants, residual, relu), scale_or_none(constants, input)};
}

Tensor frozen_batch_norm_(
    const Tensor& input,
    const Tensor& weight,
    const Tensor& bias,
    const Tensor& running_mean,
    const Tensor& running_var,
    double eps,
    const std::optional<Tensor>& residual,
    bool relu,
    bool need_scale) {
  const auto constants = checked_buffers(input, weight, bias, running_mean, running_var, eps, residual, need_scale);
  in_place(kLayer, input, constants, residual, relu);
  return scale_or_none(constants, input);
}

std::tuple<Tensor, Tensor> frozen_bn_relu_backward(
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    bool need_input,
    bool need_residual) {
  check_input(kOp, grad, "grad");
  check_constant("scale", scale, grad, "grad");
  if (output) {
    check_same_shape(kOp, "output", *output, grad, "grad");
  }
  const MemoryFormat format = output_memory_format(output ? *output : grad);
  const auto allocate = [&](bool needed) {
    return needed ? empty_beside(grad, size_of(grad), grad.scalar_type(), format)
                  : empty_beside(grad, {0}, grad.scalar_type());
  };
  Tensor grad_input = allocate(need_input);
  Tensor grad_residual = allocate(need_residual);
  if (grad.numel() > 0 && (need_input || need_residual)) {
    std::optional<Tensor> dense_output;
    if (output) {
      dense_output = as_dense(*output, format);
    }
    frozen_bn_relu_backward_kernel(
        layout_of(grad, format),
        as_dense(grad, format),
        dense_constant(scale, grad),
        dense_output,
        need_input ? std::optional<Tensor>(grad_input) : std::nullopt,
        need_residual ? std::optional<Tensor>(grad_residual) : std::nullopt);
  }
  return {grad_input, grad_residual};
}

}  // namespace resnet_cuda
