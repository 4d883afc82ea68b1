"""Splits the prediction of a deformable layer's offset convolution into offsets and masks."""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_cuda.ops._registration import needs_registered_op


def split_offsets(predicted: Tensor, offset_channels: int) -> tuple[Tensor, Tensor]:
    """The first ``offset_channels`` channels of ``predicted`` (N, 3*G*K, Ho, Wo), and the sigmoid of the others."""
    offset = predicted[:, :offset_channels]
    if not torch.jit.is_scripting():
        offset = _without_the_rest(offset)
    return offset, predicted[:, offset_channels:].sigmoid()


def split_prediction(predicted: Tensor, modulated: bool) -> tuple[Tensor, Tensor | None]:
    """Offsets (N, 2*G*K, Ho, Wo) and, if ``modulated``, the mask (N, G*K, Ho, Wo)."""
    if not modulated:
        return predicted, None
    return split_offsets(predicted, predicted.shape[1] // 3 * 2)


def _without_the_rest(part: Tensor) -> Tensor:
    """A copy where a graph will keep ``part``: the view would keep the logits, too, beside the mask made of them.

    Not in what is traced or compiled, which must be the same with gradients and without.
    """
    if type(part) is Tensor and torch.is_grad_enabled() and part.requires_grad and not needs_registered_op():
        return part.clone()
    return part
