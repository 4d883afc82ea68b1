"""Copies on the meta device, to measure the stride and channels of modules of unknown classes."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import nn

from resnet_cuda.layers.hooks import HOOKS


def meta_copy(module: nn.Module) -> nn.Module:
    """A copy of ``module`` on the meta device, in evaluation mode, without its hooks; nothing is allocated."""
    memo: dict[int, object] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        empty = torch.empty_like(tensor.detach(), device="meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    for part in module.modules():
        for name in HOOKS:
            memo[id(getattr(part, name))] = OrderedDict()
    return copy.deepcopy(module, memo).eval()


def stride_of(size: int, result: torch.Tensor) -> int:
    """The stride of a result (N, C, H, W): the ratio of the input's ``size`` to the result's."""
    return round(size / result.shape[-2])
