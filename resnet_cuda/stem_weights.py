"""A pretrained stem for images of another number of channels."""

from __future__ import annotations

from torch import Tensor

from resnet_cuda._arguments import integer


def adapt_stem_weight(weight: Tensor, in_channels: int) -> Tensor:
    """The first convolution's ``weight`` (O, I, kh, kw) for images of ``in_channels`` channels [timm's
    adapt_input_conv, for which I is 3].

    The same number: ``weight`` itself. 1: the sum over I, so that a grey image gives what it gives as I equal channels.
    Any other: the channels in turn, times I / in_channels, which keeps the result's scale.

    The result has weight's dtype.

    Raises:
        ValueError: naming the argument, what it was and what is allowed.
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
