"""Folds a norm's constants into the weights of the convolution before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.exact import peer_class, runs_as, why_touched
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.deformable import FoldedDeformConv2d, FoldedDeformPack
from resnet_cuda.inference.norms import Constants, UnfoldableError
from resnet_cuda.layers import DeformConv, DeformConv2d, DFConv2d, ModulatedDeformConv

_CONV_METHODS = ("forward", "_conv_forward")
# By class: whether a prediction of offsets within the layer has a mask; None: it is given offsets, and a mask or not.
_DEFORMABLE: dict[str, bool | None] = {
    "torchvision.ops.deform_conv.DeformConv2d": None,
    "detectron2.layers.deform_conv.DeformConv": None,
    "detectron2.layers.deform_conv.ModulatedDeformConv": None,
    "mmcv.ops.deform_conv.DeformConv2d": None,
    "mmcv.ops.modulated_deform_conv.ModulatedDeformConv2d": None,
    "mmcv.ops.deform_conv.DeformConv2dPack": False,
    "mmcv.ops.modulated_deform_conv.ModulatedDeformConv2dPack": True,
}
_OWN_DEFORMABLE = (DeformConv2d, DeformConv, ModulatedDeformConv)
_DETECTRON2 = (
    "detectron2.layers.wrappers.Conv2d",
    "detectron2.layers.deform_conv.DeformConv",
    "detectron2.layers.deform_conv.ModulatedDeformConv",
)


def is_plain_conv(conv: nn.Module) -> bool:
    """Whether ``conv`` computes what torch.nn.Conv2d does."""
    return isinstance(conv, nn.Conv2d) and runs_as(conv, nn.Conv2d, _CONV_METHODS)


def has_norm_inside(conv: nn.Module) -> bool:
    """Whether ``conv`` is a layer of detectron2 that calls its own ``norm`` and ``activation``."""
    return any(known is not None and isinstance(conv, known) and runs_as(conv, known) for known in _detectron2())


def _detectron2() -> list[type | None]:
    return [peer_class(path) for path in _DETECTRON2]


def fold(conv: nn.Module, constants: Constants, relu: bool) -> None:
    """Makes ``conv`` compute ``norm(conv(x))``, with a ReLU if the norm has one or ``relu`` is set.

    Raises:
        UnfoldableError: for a layer of another kind, with hooks, or whose weights would overflow. Nothing has changed.
    """
    if runs_as(conv, DFConv2d) and isinstance(conv, DFConv2d):
        _check_untouched(conv)
        conv = conv.conv
    _check_untouched(conv)
    kind = _kind(conv)
    if kind is None:
        raise UnfoldableError(f"the layer before it is a {type(conv).__name__}, which is not known to be a convolution")
    layer: Any = conv
    weight, bias = folded_weights(layer.weight, _bias(layer), constants)
    _take_over(conv, kind, weight, bias, relu or constants.relu)


def without_norm(conv: nn.Module, relu: bool = False) -> None:
    """As :func:`fold` for a convolution that no norm follows."""
    kind = _kind(conv)
    assert kind is not None
    layer: Any = conv
    bias = _bias(layer)
    _take_over(conv, kind, layer.weight.detach(), None if bias is None else bias.detach(), relu)


def _bias(conv: nn.Module) -> Tensor | None:
    return getattr(conv, "bias", None)  # mmcv's DeformConv2d has none


def _check_untouched(conv: nn.Module) -> None:
    touched = why_touched(conv)
    if touched is not None:
        raise UnfoldableError(f"the convolution {touched}")


def _kind(conv: nn.Module) -> str | None:
    if is_plain_conv(conv):
        return "plain"
    if any(isinstance(conv, known) and runs_as(conv, known, ("forward", "_convolve")) for known in _OWN_DEFORMABLE):
        return "deformable"
    for path, modulated in _DEFORMABLE.items():
        known = peer_class(path)
        if known is not None and isinstance(conv, known) and runs_as(conv, known):
            return "deformable" if modulated is None else ("pack v2" if modulated else "pack v1")
    return "plain" if has_norm_inside(conv) else None


def _take_over(conv: Any, kind: str, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
    for name in ("norm", "activation") if has_norm_inside(conv) else ():
        conv._modules.pop(name, None)
        conv.__dict__[name] = None  # other code may look
    if kind == "plain":
        FoldedConv2d.take_over(conv, weight, bias, relu)
    elif kind == "deformable":
        FoldedDeformConv2d.take_over(conv, weight, bias, relu)
    else:
        conv.modulated = kind == "pack v2"
        FoldedDeformPack.take_over(conv, weight, bias, relu)


def folded_weights(weight: Tensor, bias: Tensor | None, constants: Constants) -> tuple[Tensor, Tensor]:
    """Weight (O, ...) and bias (O,) with the norm folded in, in float64 and rounded once to the weight's dtype."""
    scale, shift = constants.scale, constants.shift
    if scale.shape[0] != weight.shape[0]:
        raise UnfoldableError(f"the norm has {scale.shape[0]} channels, the convolution {weight.shape[0]}")
    exact = weight.detach().cpu().to(torch.float64) * scale.reshape(-1, *[1] * (weight.dim() - 1))
    if bias is not None:
        shift = shift + bias.detach().cpu().to(torch.float64) * scale
    folded, offset = exact.to(weight.dtype).to(weight.device), shift.to(weight.dtype).to(weight.device)
    if not bool(folded.isfinite().all() and offset.isfinite().all()):
        raise UnfoldableError(f"weights with the norm in them are not finite in {weight.dtype}")
    return folded, offset
