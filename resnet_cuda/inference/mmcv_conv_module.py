"""mmcv's ConvModule with norm and ReLU fused into the convolution. Imports mmcv."""

from __future__ import annotations

from mmcv.cnn.bricks import conv_module
from torch import Tensor


class FusedConvModule(conv_module.ConvModule):
    """Computes what ConvModule does, with ``activate=False``, too; ``norm=False`` is an error if a norm was folded."""

    relu_in_conv: bool

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        if self.with_norm and not norm:
            raise RuntimeError(
                "ConvModule: norm is False; it must be True after optimize_for_inference, which has put the norm into "
                "the convolution's weights"
            )
        if self.with_explicit_padding:
            x = self.padding_layer(x)
        if self.relu_in_conv and not activate:
            return self.conv.functional(x, relu=False)
        x = self.conv(x)
        return self.activate(x) if activate and self.with_activation and not self.relu_in_conv else x
