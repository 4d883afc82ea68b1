"""Deformable convolutions with a norm folded into weight and bias, and with a ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.layers import DeformConv2d
from resnet_cuda.layers.offset_prediction import split_prediction
from resnet_cuda.ops.deform_conv_relu import deform_conv2d_relu


class FoldedDeformConv2d(DeformConv2d):
    """``relu(deform_conv2d(input, offset, mask) + bias)``: ``forward(input, offset, mask=None)``.

    ``weight`` (O, C/groups, kh, kw), ``bias`` (O,) or None; shapes and errors as for
    :func:`resnet_cuda.ops.deform_conv2d`.
    """

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        relu: bool  #: whether a ReLU ends it

    __constants__: tuple[str, ...] = ("relu",)

    @classmethod
    def take_over(cls, conv: nn.Module, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        """Converts ``conv``, a deformable layer of any library, in place to this class."""
        conv.__dict__.pop("bias", None)  # a plain None in detectron2's
        conv._parameters["weight"] = nn.Parameter(weight, False)
        conv._parameters["bias"] = None if bias is None else nn.Parameter(bias, False)
        conv.relu = relu  # type: ignore[assignment]
        conv.__class__ = cls

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._folded(input, offset, mask)

    def _folded(self, input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
            out = self._convolve(input, offset, mask)
            return F.relu(out) if self.relu else out
        if not self.relu:
            return self._convolve(input, offset, mask)
        geometry = self.stride, self.padding, self.dilation
        return deform_conv2d_relu(input, offset, self.weight, self.bias, *geometry, mask)

    def extra_repr(self) -> str:
        out_channels, in_channels, *kernel_size = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={tuple(kernel_size)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, relu={self.relu}"
        )


class FoldedDeformPack(FoldedDeformConv2d):
    """A FoldedDeformConv2d with the convolution that predicts its offsets, ``conv_offset`` [mmcv's packs].

    The predicted channels are all offsets (v1), or their last third are the mask's logits (v2).
    """

    if TYPE_CHECKING:
        modulated: bool
        conv_offset: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        offset, mask = split_prediction(self.conv_offset(input), self.modulated)
        return self._folded(input, offset, mask)


class WithOffsets(nn.Module):
    """``conv(x, ...)`` with the offsets and masks that ``offset`` predicts from x; both are modules of a block."""

    def __init__(self, offset: nn.Module, conv: FoldedDeformConv2d, modulated: bool):
        super().__init__()
        self.offset, self.conv, self.modulated = offset, conv, modulated

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = split_prediction(self.offset(x), self.modulated)
        return self.conv(x, offset, mask)
