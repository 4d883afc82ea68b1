"""``torch.ops.resnet_cuda`` where the compiled library is missing: the operators that scripted networks call.

Their schemas are those of ``csrc/registration.cpp``, their kernels the reference, with its derivatives, so that a
scripted or traced file runs on any installation.
"""

from __future__ import annotations

import torch

from resnet_cuda import reference
from resnet_cuda.reference.checks import compute_dtype
from resnet_cuda.reference.frozen_bn import scale_and_shift

SCHEMAS = (
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, int stride_h, int stride_w, "
    "int pad_h, int pad_w, int dilation_h, int dilation_w) -> Tensor",
    "frozen_batch_norm(Tensor input, Tensor weight, Tensor bias, Tensor running_mean, Tensor running_var, float eps, "
    "Tensor? residual, bool relu, bool need_scale) -> (Tensor, Tensor)",
)


def define(library: torch.library.Library) -> None:
    """Registers both in ``library``, a fragment of the namespace; it must stay alive."""
    for schema, kernel in zip(SCHEMAS, (_deform_conv2d, _frozen_batch_norm), strict=True):
        library.define(schema)
        library.impl(schema.split("(", 1)[0], kernel, "CompositeImplicitAutograd")


def _deform_conv2d(input, weight, offset, mask, bias, *geometry):
    return reference.deform_conv2d(input, offset, weight, bias, geometry[:2], geometry[2:4], geometry[4:], mask)


def _frozen_batch_norm(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    constants = (weight, bias, running_mean, running_var, eps)
    output = reference.frozen_batch_norm(input, *constants, residual, relu)
    return output, scale_and_shift(*constants, compute_dtype(input))[0]
