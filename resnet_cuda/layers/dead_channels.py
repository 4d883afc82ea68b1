"""A warning about statistics that make channels of a frozen norm constant or NaN, given once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


def warn_of_dead_channels(prefix: str, variance: Tensor, eps: float) -> None:
    """Warns if an entry of ``variance + eps``, (C,), is not positive.

    A channel that is 0 on every training image has variance 0. Published weights have no such channel: Caffe2's
    statistics are folded, and torchvision's smallest variances are subnormal but positive. Meta tensors and subclasses
    are not checked.
    """
    if type(variance) not in (Tensor, nn.Parameter) or variance.is_meta or not variance.is_floating_point():
        return
    with torch.no_grad():
        denominator = variance + eps
        if bool((denominator > 0).all()):
            return
        zeros = int((denominator == 0).sum())
        others = int((~(denominator >= 0)).sum())
    parts = []
    if zeros:
        parts.append(f"0 in {zeros} of {variance.numel()} channels, which give their bias whatever the input is")
    if others:
        parts.append(f"negative or NaN in {others} of {variance.numel()} channels, which give NaN")
    warnings.warn(
        f"FrozenBatchNorm2d: {prefix}running_var + eps (eps = {eps}) is {' and '.join(parts)}; "
        "are these the right weights?",
        stacklevel=2,
    )
