"""mmcv's ConvModule: convolution, norm and activation. A file of its own: mmcv-lite lacks the layers of mmcv.py."""

from __future__ import annotations

from mmcv.cnn.bricks import conv_module
from torch import Tensor

from resnet_cuda.acceleration.fused import run_fused
from resnet_cuda.layers.constant_norm import batch_norm_constants
from resnet_cuda.layers.hooks import is_relu


class ConvModule(conv_module.ConvModule):
    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        usual = self.order == ("conv", "norm", "act") and norm and self.with_norm
        # mmcv's own way to fuse, which folds the norm into the convolution at each call
        folds = getattr(self, "efficient_conv_bn_eval_forward", None) is not None
        constants = batch_norm_constants(self.norm) if usual and not folds else None
        if constants is None:
            return super().forward(x, activate, norm)
        if self.with_explicit_padding:
            x = self.padding_layer(x)
        activate = activate and self.with_activation
        fused = activate and is_relu(self.activate)
        x = run_fused(self.conv, constants, x, relu=fused, norm=self.norm)
        return self.activate(x) if activate and not fused else x
