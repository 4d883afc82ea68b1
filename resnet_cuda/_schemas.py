"""The compiled operators' schemas, as the Python side calls them: those of ``csrc/registration.cpp``."""

from __future__ import annotations

_GEOMETRY = "int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w"
_STATISTICS = "Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var, float eps, Tensor? residual"

# By name: the rest of the schema.
SCHEMAS = {
    "deform_conv2d": f"(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, {_GEOMETRY}) -> Tensor",
    "deform_conv2d_relu": (
        f"(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, {_GEOMETRY}) -> Tensor"
    ),
    "deform_conv2d_backward": (
        f"(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor? mask, {_GEOMETRY}, bool need_input, "
        "bool need_weight, bool need_offset, bool need_mask, bool need_bias) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "conv2d_winograd": (
        "(Tensor input, Tensor weight, int out_channels, Tensor? bias, Tensor? residual, bool relu, int pad_h, "
        "int pad_w) -> Tensor"
    ),
    "frozen_bn_relu": "(Tensor input, Tensor scale, Tensor shift, Tensor? residual, bool relu) -> Tensor",
    "frozen_bn_relu_": "(Tensor(a!) input, Tensor scale, Tensor shift, Tensor? residual, bool relu) -> ()",
    "frozen_batch_norm": f"(Tensor input, {_STATISTICS}, bool relu, bool need_scale) -> (Tensor, Tensor)",
    "frozen_batch_norm_": f"(Tensor(a!) input, {_STATISTICS}, bool relu, bool need_scale) -> Tensor",
    "frozen_bn_relu_backward": (
        "(Tensor grad, Tensor scale, Tensor? output, bool need_input, bool need_residual) -> (Tensor, Tensor)"
    ),
}
