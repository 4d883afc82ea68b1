"""The deformable layer of the backbone: it predicts its own offsets."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resnet_cuda._arguments import conv_geometry, flag, integer, pair
from resnet_cuda.layers.conv import Conv2d
from resnet_cuda.layers.deform_conv import DeformConv, ModulatedDeformConv
from resnet_cuda.layers.offset_prediction import split_offsets


class DFConv2d(nn.Module):
    """A deformable convolution and the convolution that predicts its offsets [maskrcnn_benchmark.layers.DFConv2d].

    ``forward`` (N, in_channels, H, W) gives (N, out_channels, Ho, Wo) of the input's dtype; N may be 0. Dtypes, devices
    and layouts are those of :func:`resnet_cuda.ops.deform_conv2d`.

    Parameters: ``offset.weight``, ``offset.bias``, ``conv.weight`` (and ``conv.bias``). As in detectron2 and
    mmdetection, the channels of ``offset``'s result are 2*G*K offsets (ordered by group, tap, (dy, dx)) for K = kh*kw
    taps and, for v2, G*K logits, whose sigmoid is the mask. ``offset`` is initialised to 0, so v1 starts as the plain
    convolution and v2 as half of it: sigmoid(0) = 0.5.

    Args:
        in_channels, out_channels, groups, bias: as for a convolution.
        with_modulated_dcn: v2 (offsets and mask) or v1 (offsets only).
        kernel_size, stride, dilation: one int or (vertical, horizontal).
        deformable_groups: G, the number of channel groups with their own offsets; it divides in_channels.
        padding: one int or (vertical, horizontal); None is ``dilation * (kernel_size - 1) // 2``, which keeps the size
            at stride 1.

    Raises:
        ValueError: naming the argument that is out of range, its value and what is allowed.

    Sources: Dai et al. 2017 (arXiv:1703.06211); Zhu et al. 2018 (arXiv:1811.11168).
    """

    __constants__ = ("with_modulated_dcn",)  # TorchScript compiles what this layer is

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        with_modulated_dcn: bool = True,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        padding: int | Sequence[int] | None = None,
    ):
        super().__init__()
        layer = type(self).__name__
        if not isinstance(with_modulated_dcn, bool) and isinstance(with_modulated_dcn, (int, tuple, list)):
            raise ValueError(
                f"{layer}: with_modulated_dcn is {with_modulated_dcn!r}; it must be True or False. It is the third "
                "argument, as in maskrcnn-benchmark: give kernel_size by its name"
            )
        with_modulated_dcn = flag(layer, "with_modulated_dcn", with_modulated_dcn)
        deformable_groups = integer(layer, "deformable_groups", deformable_groups, 1)
        kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        same = padding is None
        stride, padding, dilation = conv_geometry(layer, stride, 0 if same else padding, dilation)
        if same:
            padding = tuple(step * (taps - 1) // 2 for step, taps in zip(dilation, kernel_size, strict=True))
        self.with_modulated_dcn = with_modulated_dcn
        self.offset_channels = 2 * deformable_groups * kernel_size[0] * kernel_size[1]
        mask_channels = self.offset_channels // 2 if with_modulated_dcn else 0
        self.offset = Conv2d(
            integer(layer, "in_channels", in_channels, 1),
            self.offset_channels + mask_channels,
            kernel_size,
            stride,
            padding,
            dilation,
        )
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.conv = (ModulatedDeformConv if with_modulated_dcn else DeformConv)(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )

    def forward(self, x: Tensor) -> Tensor:
        predicted = self.offset(x)
        if not self.with_modulated_dcn:
            return self.conv(x, predicted)
        offset, mask = split_offsets(predicted, self.offset_channels)
        return self.conv(x, offset, mask)
