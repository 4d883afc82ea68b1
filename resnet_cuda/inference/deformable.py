"""Deformable convolutions with a norm in weight and bias, and their ReLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda import ops
from resnet_cuda.inference.convolution import recorded


class FoldedDeformConv2d(nn.Module):
    """``relu(deform_conv2d(input, offset, mask) + bias)``: ``forward(input, offset, mask=None)``.

    ``weight`` (O, C/groups, kh, kw), ``bias`` (O,) or None; shapes and errors as for
    :func:`resnet_cuda.ops.deform_conv2d`.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    relu: bool  #: whether a ReLU ends it

    @classmethod
    def take_over(cls, conv: nn.Module, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        """Makes ``conv``, a deformable layer of any library, one of these, or of this class."""
        conv.__dict__.pop("bias", None)  # a plain None in detectron2's
        conv._parameters["weight"] = nn.Parameter(weight, False)
        conv._parameters["bias"] = None if bias is None else nn.Parameter(bias, False)
        conv.relu = relu  # type: ignore[assignment]
        conv.__class__ = cls

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        out = ops.deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
        if not self.relu:
            return out
        return F.relu(out) if recorded(input) or out.requires_grad else torch.relu_(out)

    def extra_repr(self) -> str:
        out_channels, in_channels, *kernel_size = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={tuple(kernel_size)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, relu={self.relu}"
        )


class FoldedDeformPack(FoldedDeformConv2d):
    """A FoldedDeformConv2d with the convolution that predicts its offsets, ``conv_offset`` [mmcv's packs].

    Channels of the prediction: all are offsets, or the last third are logits of the mask.
    """

    modulated: bool
    conv_offset: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input, *split_prediction(self.conv_offset(input), self.modulated))


class WithOffsets(nn.Module):
    """``conv(x, offsets and mask that offset predicts from x)``, where a library's block puts these two together."""

    def __init__(self, offset: nn.Module, conv: FoldedDeformConv2d, modulated: bool):
        super().__init__()
        self.offset, self.conv, self.modulated = offset, conv, modulated

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, *split_prediction(self.offset(x), self.modulated))


def split_prediction(predicted: Tensor, modulated: bool) -> tuple[Tensor, Tensor | None]:
    """Offsets (N, 2*G*K, Ho, Wo) and, where ``modulated``, the mask (N, G*K, Ho, Wo)."""
    if not modulated:
        return predicted, None
    offsets = predicted.shape[1] // 3 * 2
    return predicted[:, :offsets], predicted[:, offsets:].sigmoid()
