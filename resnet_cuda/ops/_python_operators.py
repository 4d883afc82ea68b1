"""``torch.ops.resnet_cuda`` where the compiled library is missing: the operators that scripted networks call.

Their kernels are the reference, with its derivatives, so that a scripted or traced file runs on any installation.
"""

from __future__ import annotations

import torch

from resnet_cuda import reference
from resnet_cuda._schemas import SCHEMAS
from resnet_cuda.reference.checks import compute_dtype
from resnet_cuda.reference.frozen_bn import scale_and_shift


def define(library: torch.library.Library) -> None:
    """Registers both in ``library``, a fragment of the namespace; it must stay alive."""
    for name, kernel in {"deform_conv2d": _deform_conv2d, "frozen_batch_norm": _frozen_batch_norm}.items():
        library.define(f"{name}{SCHEMAS[name]}")
        library.impl(name, kernel, "CompositeImplicitAutograd")


def _deform_conv2d(input, weight, offset, mask, bias, *geometry):
    return reference.deform_conv2d(input, offset, weight, bias, geometry[:2], geometry[2:4], geometry[4:], mask)


def _frozen_batch_norm(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    constants = (weight, bias, running_mean, running_var, eps)
    output = reference.frozen_batch_norm(input, *constants, residual, relu)
    return output, scale_and_shift(*constants, compute_dtype(input))[0]
