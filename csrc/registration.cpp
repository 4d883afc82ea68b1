// Every operator's schema, in one block. Devices register their kernels at the foot of their own files; shape
// functions, autograd and autocast are in resnet_cuda/ops.

#include "common/registration.h"

RESNET_CUDA_SCHEMAS(m) {
  m.def(
      "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, int stride_h, "
      "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w) -> Tensor");
  // With a ReLU in its epilogue. Inference only.
  m.def(
      "deform_conv2d_relu(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, int stride_h, "
      "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w) -> Tensor");
  // Gradients for input, weight, offset, mask and bias; of shape (0,) where not needed.
  m.def(
      "deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor? mask, int stride_h, "
      "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, bool need_input, bool need_weight, "
      "bool need_offset, bool need_mask, bool need_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // `weight` is transformed already, see resnet_cuda/ops/conv2d_winograd.py. Inference only.
  m.def(
      "conv2d_winograd(Tensor input, Tensor weight, int out_channels, Tensor? bias, Tensor? residual, bool relu, "
      "int pad_h, int pad_w) -> Tensor");
  m.def("frozen_bn_relu(Tensor input, Tensor scale, Tensor shift, Tensor? residual, bool relu) -> Tensor");
  m.def("frozen_bn_relu_(Tensor(a!) input, Tensor scale, Tensor shift, Tensor? residual, bool relu) -> ()");
  // The layer, from its four buffers. The second result is the scale (C,), which the backward needs, or of shape (0,).
  // It is a result, not an argument to be filled, so selective checkpointing can save it instead of recomputing it.
  m.def(
      "frozen_batch_norm(Tensor input, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var, float eps, "
      "Tensor? residual, bool relu, bool need_scale) -> (Tensor, Tensor)");
  m.def(
      "frozen_batch_norm_(Tensor(a!) input, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var, "
      "float eps, Tensor? residual, bool relu, bool need_scale) -> Tensor");
  // `output` is the forward's result where it ended in a ReLU, else None. Gradients for input and residual.
  m.def(
      "frozen_bn_relu_backward(Tensor grad, Tensor scale, Tensor? output, bool need_input, bool need_residual) "
      "-> (Tensor, Tensor)");
}
