"""Norms that are ``x * scale + shift`` in evaluation mode: which they are, and their constants in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnet_cuda.exact import peer_class, runs_as, why_touched
from resnet_cuda.layers import FrozenBatchNorm2d

# Frozen norms of other libraries with the buffers weight, bias, running_mean and running_var.
_FROZEN = (
    "torchvision.ops.misc.FrozenBatchNorm2d",
    "detectron2.layers.batch_norm.FrozenBatchNorm2d",
    "maskrcnn_benchmark.layers.batch_norm.FrozenBatchNorm2d",
    "timm.layers.norm_act.FrozenBatchNormAct2d",
)
_TIMM = ("timm.layers.norm_act.FrozenBatchNormAct2d", "timm.layers.norm_act.BatchNormAct2d")


class UnfoldableError(Exception):
    """A norm cannot be folded; the message is the reason in the report."""


class Constants(NamedTuple):
    """``x * scale + shift``, with a ReLU if ``relu``; scale and shift are (C,), float64."""

    scale: Tensor
    shift: Tensor
    relu: bool


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a 2D batch norm, by its class or its class's name: it is folded, or named in the report."""
    if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)):
        return True
    return "BatchNorm" in type(module).__name__ and not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d))


def scale_and_shift_of(norm: nn.Module) -> Constants:
    """The constants of a norm in evaluation mode.

    Raises:
        UnfoldableError: if it computes something else, or its constants are unusable.
    """
    touched = why_touched(norm)
    if touched is not None:
        raise UnfoldableError(f"the norm {touched}")
    known = _known_class(norm)
    if known is None:
        raise UnfoldableError(f"{type(norm).__name__} has a forward of its own")
    if isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        if norm.training:
            raise UnfoldableError("the norm is in training mode")
        if norm.running_mean is None or norm.running_var is None:
            raise UnfoldableError("the norm has no running statistics")
    layer: Any = norm
    eps = 0.0 if known is peer_class("maskrcnn_benchmark.layers.batch_norm.FrozenBatchNorm2d") else float(layer.eps)
    variance = _float64(layer.running_var) + eps
    if not bool((variance > 0).all()):
        raise UnfoldableError("running_var + eps is zero, negative or NaN in some channels")
    scale = variance.rsqrt()
    if layer.weight is not None:
        scale = scale * _float64(layer.weight)
    shift = -_float64(layer.running_mean) * scale
    if layer.bias is not None:
        shift = shift + _float64(layer.bias)
    if not bool(scale.isfinite().all() and shift.isfinite().all()):
        raise UnfoldableError("scale or shift of some channels is not finite")
    return Constants(scale, shift, _activation(norm) if known in map(peer_class, _TIMM) else False)


def _known_class(norm: nn.Module) -> type | None:
    candidates = [FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm, *map(peer_class, (*_FROZEN, *_TIMM))]
    for known in candidates:
        if known is not None and isinstance(norm, known) and runs_as(norm, known):
            return known
    return None


def _activation(norm: Any) -> bool:
    """Whether timm's norm, which has an activation in it, applies a ReLU."""
    for part in (norm.drop, norm.act):
        touched = why_touched(part)
        if touched is not None:
            raise UnfoldableError(f"the norm's {type(part).__name__} {touched}")
    if type(norm.drop) is not nn.Identity or type(norm.act) not in (nn.Identity, nn.ReLU):
        raise UnfoldableError(f"the norm applies {type(norm.act).__name__} after {type(norm.drop).__name__}")
    return type(norm.act) is nn.ReLU


def _float64(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        raise UnfoldableError("the model is on the meta device")
    return tensor.detach().cpu().to(torch.float64)  # not every device has float64
