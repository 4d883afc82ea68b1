"""Norms of any library that are ``x * scale + shift`` in a call, and their constants for the fused pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d
from resnet_cuda.layers.hooks import is_hooked
from resnet_cuda.ops._registration import transformed
from resnet_cuda.ops.frozen_bn import frozen_batch_norm
from resnet_cuda.patched import Originals

Constants = tuple[Tensor, Tensor, Tensor, Tensor, float]  # weight, bias, mean, variance, eps
_BATCH_NORMS = Originals("forward", nn.BatchNorm2d, nn.SyncBatchNorm)  # the first also BatchNorm1d's and 3d's
_OF_IMAGES = (nn.BatchNorm2d, nn.SyncBatchNorm)


class FrozenNorm:
    """The forward of another library's frozen norm with the buffers weight, bias, running_mean and running_var."""

    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    eps: Any

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and x.dim() == 3:  # no proxy of torch.fx
            x = x.unsqueeze(0)  # what the libraries' constants of shape (1, C, 1, 1) make of a single image
        return frozen_batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)


_FROZEN = (FrozenBatchNorm2d.forward, FrozenNorm.forward)


def batch_norm_constants(norm: nn.Module) -> Constants | None:
    """The arguments of ``frozen_batch_norm`` for a norm that is constant in this call, else None.

    Constant are a frozen norm, and a BatchNorm2d or SyncBatchNorm in evaluation mode whose weight and bias need no
    gradient. None if the norm has hooks, which must see its own result. SyncBatchNorm also accepts inputs that are not
    batches of images; the fused pass does not.
    """
    if is_hooked(norm):
        return None
    forward, layer = type(norm).forward, norm
    if forward in _FROZEN:
        return layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.eps  # type: ignore[return-value]
    if forward not in _BATCH_NORMS or not isinstance(layer, _OF_IMAGES) or layer.training:
        return None
    weight: Any = layer.weight
    bias: Any = layer.bias  # None with bias=False, which torch has since 2.14
    if layer.running_mean is None or weight is None or bias is None or transformed():
        return None
    mean: Any = layer.running_mean
    variance: Any = layer.running_var
    if isinstance(weight, Proxy):  # torch.fx, whose graph calls the norm, as it may be trained later
        return None
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        return None
    return weight.detach(), bias.detach(), mean, variance, layer.eps
