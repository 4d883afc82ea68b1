"""FLOP formulas for ``torch.utils.flop_counter.FlopCounterMode``, which otherwise counts a deformable layer as
nothing.

The convention is that of torch's convolutions: twice the multiplications of the matrix product. The bias is not
counted, as there, and neither is the sampling: its seven or so operations per sample are O times fewer than the
product's, and a deformable layer without its offsets' convolution then counts what the plain convolution of its shape
does. FrozenBN has no formula and counts 0, as torch's batch norm does. On the reference back end torch counts the
product by itself.

``torch.utils.flop_counter`` imports Triton where there is one, a tenth of a second and more. So the formulas are
registered when somebody imports it, and at once where somebody has.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from math import prod
from types import ModuleType
from typing import Any

import torch

_COUNTER = "torch.utils.flop_counter"


def _product(weight_shape, grad_or_output_shape) -> int:
    """Of (O/groups, C/groups*kh*kw) and (C/groups*kh*kw, N*Ho*Wo), for each group."""
    return 2 * prod(grad_or_output_shape) * prod(weight_shape[1:])


def _forward_flops(input_shape, weight_shape, *rest: Any, out_shape=None, **names: Any) -> int:
    return _product(weight_shape, out_shape)


def _backward_flops(grad_shape, input_shape, weight_shape, *rest: Any, out_shape=None, **names: Any) -> int:
    """A product for the weight, and one for the sampled columns, from which input, offset and mask get theirs."""
    need_input, need_weight, need_offset, need_mask, _need_bias = rest[-5:]
    products = int(need_weight) + int(need_input or need_offset or need_mask)
    return products * _product(weight_shape, grad_shape)


def _register(counter: ModuleType) -> None:
    for name, formula in (("deform_conv2d", _forward_flops), ("deform_conv2d_backward", _backward_flops)):
        operator = getattr(torch.ops.resnet_cuda, name)
        if operator not in counter.flop_registry:  # a reloaded package registers nothing twice
            counter.register_flop_formula(operator)(formula)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds ``torch.utils.flop_counter`` as everyone else does, and registers behind its execution."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _COUNTER or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _register(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module
        return spec


def register_flop_formulas() -> None:
    """Now where the counter is imported already, else when it is."""
    if _COUNTER in sys.modules:
        _register(sys.modules[_COUNTER])
    else:
        sys.meta_path.insert(0, _WhenImported())
