"""Adapts a pretrained stem to images with another number of channels."""

from __future__ import annotations

from torch import Tensor

from resnet_cuda._arguments import integer


def adapt_stem_weight(weight: Tensor, in_channels: int) -> Tensor:
    """The first convolution's ``weight`` (O, I, kh, kw) for images of ``in_channels`` channels [timm's
    adapt_input_conv, where I is 3].

    If ``in_channels`` is I: ``weight`` itself. If it is 1: the sum over I, so that a grey image gives the same result
    as I equal channels. Otherwise: the channels repeated in turn, times I / in_channels, which keeps the result's
    scale. The result has weight's dtype.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    in_channels = integer("adapt_stem_weight", "in_channels", in_channels, 1)
    if not isinstance(weight, Tensor) or weight.dim() != 4 or not weight.is_floating_point() or weight.shape[1] == 0:
        what = f"of shape {tuple(weight.shape)}, {weight.dtype}" if isinstance(weight, Tensor) else repr(weight)
        raise ValueError(f"adapt_stem_weight: weight is {what}; it must be a floating-point tensor (O, I, kh, kw)")
    given = weight.shape[1]
    if in_channels == given:
        return weight
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // given), 1, 1)[:, :in_channels]
    return repeated * (given / in_channels)
