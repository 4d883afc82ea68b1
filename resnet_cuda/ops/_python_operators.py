"""``torch.ops.resnet_cuda`` where the compiled library is missing: the operators that scripted networks call.

Their kernels are the reference, with its derivatives, so that a scripted or traced file runs on any installation.
"""

from __future__ import annotations

import atexit

import torch

from resnet_cuda import _extension, reference
from resnet_cuda._schemas import SCHEMAS
from resnet_cuda.reference.checks import compute_dtype
from resnet_cuda.reference.frozen_bn import scale_and_shift


def define() -> None:
    """Registers both, unless an earlier import of the package has: code may drop it from ``sys.modules``."""
    missing = [name for name in _KERNELS if not _extension.is_registered(name)]
    if not missing:
        return
    library = torch.library.Library("resnet_cuda", "FRAGMENT")
    for name in missing:
        library.define(f"{name}{SCHEMAS[name]}")
        library.impl(name, _KERNELS[name], "CompositeImplicitAutograd")
    # With the library its operators would go, and it with this module, which scripted networks outlive.
    atexit.register(lambda: library)


def _deform_conv2d(input, weight, offset, mask, bias, *geometry):
    return reference.deform_conv2d(input, offset, weight, bias, geometry[:2], geometry[2:4], geometry[4:], mask)


def _frozen_batch_norm(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    constants = (weight, bias, running_mean, running_var, eps)
    output = reference.frozen_batch_norm(input, *constants, residual, relu)
    return output, scale_and_shift(*constants, compute_dtype(input))[0]


_KERNELS = {"deform_conv2d": _deform_conv2d, "frozen_batch_norm": _frozen_batch_norm}
