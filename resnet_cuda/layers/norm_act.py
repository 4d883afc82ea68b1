"""Normalisation, residual sum and ReLU behind a convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d


def norm_act(norm: nn.Module, x: Tensor, residual: Tensor | None = None, relu: bool = True) -> Tensor:
    """``relu(norm(x) + residual)``; for a FrozenBatchNorm2d in one pass that overwrites ``x``.

    ``x`` must be nobody else's, as the result of a convolution is: its backward needs its input, not its output. The norm
    is called as a module, so hooks on it run.
    """
    if isinstance(norm, FrozenBatchNorm2d):
        return norm(x, residual=residual, relu=relu, inplace=True)
    x = norm(x)
    if residual is not None:
        x = x + residual
    return F.relu(x) if relu else x
