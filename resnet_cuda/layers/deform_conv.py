"""Deformable convolutions as modules that take their offsets as arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda import ops
from resnet_cuda._arguments import conv_geometry, flag, integer, pair


class DeformConv2d(nn.Module):
    """Deformable convolution v1 and v2 [torchvision.ops.DeformConv2d]: ``forward(input, offset, mask=None)``.

    Parameters: ``weight`` (out_channels, in_channels/groups, kh, kw) and, with ``bias``, ``bias`` (out_channels,).
    Shapes, dtypes and errors of a call are those of :func:`resnet_cuda.ops.deform_conv2d`.

    Args:
        in_channels, out_channels: divisible by ``groups``.
        kernel_size, stride, padding, dilation: one int or (vertical, horizontal).
        groups: of the convolution, as in ``torch.nn.Conv2d``.
        bias: whether there is a bias.

    Raises:
        ValueError: naming the argument that is out of range, its value and what is allowed.

    Sources: Dai et al. 2017 (arXiv:1703.06211); Zhu et al. 2018 (arXiv:1811.11168).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        layer = type(self).__name__
        groups = integer(layer, "groups", groups, 1)
        in_channels = integer(layer, "in_channels", in_channels, 1)
        out_channels = integer(layer, "out_channels", out_channels, 1)
        bias = flag(layer, "bias", bias)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{layer}: {name} is {channels}; it must be divisible by groups = {groups}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation = conv_geometry(layer, stride, padding, dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch.nn.Conv2d's initialisation."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._convolve(input, offset, mask)

    def _convolve(self, input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
            stride, padding, dilation = self.stride, self.padding, self.dilation
            return torch.ops.resnet_cuda.deform_conv2d(
                input,
                self.weight,
                offset,
                mask,
                self.bias,
                stride[0],
                stride[1],
                padding[0],
                padding[1],
                dilation[0],
                dilation[1],
            )
        return ops.deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class _WithOffsetGroups(DeformConv2d):
    """A DeformConv2d with maskrcnn-benchmark's argument ``deformable_groups``; the offset must have as many groups."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        layer = type(self).__name__
        deformable_groups = integer(layer, "deformable_groups", deformable_groups, 1)
        if self.in_channels % deformable_groups:
            raise ValueError(
                f"{layer}: deformable_groups is {deformable_groups}; it must divide in_channels = {self.in_channels}"
            )
        self.deformable_groups = deformable_groups

    def _check_groups(self, offset: Tensor) -> None:
        expected = 2 * self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        if torch.jit.is_scripting():
            assert offset.shape[1] == expected, "offset must have 2 * deformable_groups * kh * kw channels"
            return
        if isinstance(offset, Proxy) or torch.jit.is_tracing():  # no shapes; the operator checks them at each call
            return
        if offset.dim() != 4 or offset.shape[1] != expected:
            raise ValueError(
                f"{type(self).__name__}: offset is of shape {tuple(offset.shape)}; it must have {expected} channels, "
                "2 * deformable_groups * kh * kw"
            )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, deformable_groups={self.deformable_groups}"


class DeformConv(_WithOffsetGroups):
    """Deformable convolution v1 [maskrcnn_benchmark.layers.DeformConv]: ``forward(input, offset)``.

    As :class:`DeformConv2d`, with two differences: ``deformable_groups`` (G), which divides ``in_channels``, and
    ``bias``, which is False by default. An offset without exactly 2*G*kh*kw channels raises ValueError.

    Source: Dai et al. 2017 (arXiv:1703.06211).
    """

    def forward(self, input: Tensor, offset: Tensor) -> Tensor:
        self._check_groups(offset)
        return self._convolve(input, offset, None)


class ModulatedDeformConv(_WithOffsetGroups):
    """Deformable convolution v2 [maskrcnn_benchmark.layers.ModulatedDeformConv]: ``forward(input, offset, mask)``.

    As :class:`DeformConv`, with a mask of G*kh*kw channels, to which no sigmoid is applied here.

    Source: Zhu et al. 2018 (arXiv:1811.11168).
    """

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        self._check_groups(offset)
        return self._convolve(input, offset, mask)
