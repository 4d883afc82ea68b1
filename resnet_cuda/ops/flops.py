"""FLOP formulas for ``torch.utils.flop_counter.FlopCounterMode``, which would count a deformable convolution as 0.

The convention is that of torch's convolutions: two FLOP per multiplication of the matrix product, so that a deformable
convolution counts as much as the plain one of its shape. The bias is not counted, as in torch, nor is the sampling: its
about seven operations per sample are O times fewer than the product's. FrozenBN has no formula and counts 0, as torch's
batch norm does. On the reference backend torch counts the product itself.

Importing ``torch.utils.flop_counter`` takes a tenth of a second or more, since it imports Triton if that is installed.
So the formulas are registered when it is imported, or at once if it already is. Python calls nobody after an import;
a finder in ``sys.meta_path`` takes the place of such a callback, and removes itself when it has done its work.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
from math import prod
from types import ModuleType
from typing import Any

import torch

_COUNTER = "torch.utils.flop_counter"


def _product(weight_shape, grad_or_output_shape) -> int:
    """FLOPs of (O/groups, C/groups*kh*kw) times (C/groups*kh*kw, N*Ho*Wo), over all groups."""
    return 2 * prod(grad_or_output_shape) * prod(weight_shape[1:])


def _forward_flops(_input_shape, weight_shape, *rest: Any, out_shape=None, **names: Any) -> int:
    return _product(weight_shape, out_shape)


def _backward_flops(grad_shape, _input_shape, weight_shape, *rest: Any, out_shape=None, **names: Any) -> int:
    """A product for the weight's gradient, and one for the columns', which those of input, offset and mask need."""
    need_input, need_weight, need_offset, need_mask, _need_bias = rest[-5:]
    products = int(need_weight) + int(need_input or need_offset or need_mask)
    return products * _product(weight_shape, grad_shape)


def _winograd_flops(input_shape, _weight_shape, out_channels, *rest: Any, out_shape=None, **names: Any) -> int:
    """Those of the direct convolution, so that a network counts the same with it; Winograd's products are a quarter."""
    return _product((out_channels, input_shape[1], 3, 3), out_shape)


_FORMULAS = {
    "conv2d_winograd": _winograd_flops,
    "deform_conv2d": _forward_flops,
    "deform_conv2d_relu": _forward_flops,
    "deform_conv2d_backward": _backward_flops,
}


def _register(counter: ModuleType) -> None:
    for name, formula in _FORMULAS.items():
        operator = getattr(torch.ops.resnet_cuda, name)
        if operator not in counter.flop_registry:  # registered already where the package is reloaded
            counter.register_flop_formula(operator)(formula)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds ``torch.utils.flop_counter`` by the other finders, and registers the formulas after it has run."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _COUNTER:
            return None
        others = (it for it in list(sys.meta_path) if not isinstance(it, _WhenImported))
        spec = next((found for it in others if (found := it.find_spec(fullname, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _register(module)
            with contextlib.suppress(ValueError):  # removed already
                sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module
        return spec


def register_flop_formulas() -> None:
    """Registers the formulas: at once if the counter has been imported, else at its import."""
    if _COUNTER in sys.modules:
        _register(importlib.import_module(_COUNTER))  # waits where another thread is importing it
    else:
        sys.meta_path.insert(0, _WhenImported())
