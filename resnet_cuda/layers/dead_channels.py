"""One warning for statistics under which channels of a frozen norm say nothing about its input."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


def warn_of_dead_channels(prefix: str, variance: Tensor, eps: float) -> None:
    """Warns where ``variance + eps``, (C,), is not positive: there is nothing to divide by.

    A variance of 0 is what a channel that is 0 on every training image leaves behind (Caffe2's weights have none, since
    they are folded; torchvision's go down to denormal numbers, which are positive). Tensors without values, as those of
    ``torch.device("meta")``, are not looked at.
    """
    if type(variance) not in (Tensor, nn.Parameter) or variance.is_meta or not variance.is_floating_point():
        return
    with torch.no_grad():
        divided_by = variance + eps
        if bool((divided_by > 0).all()):
            return
        zeros = int((divided_by == 0).sum())
        others = int((~(divided_by >= 0)).sum())
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
