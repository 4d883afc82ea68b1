"""mmdetection's ResNet blocks."""

from __future__ import annotations

from mmdet.models.backbones import resnet
from torch import Tensor

from resnet_cuda.acceleration.fused import NotFusableError, check_relus, constants_of, conv_norm_act, shortcut_of


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_cp and x.requires_grad)
            check_relus(self.relu)
            first, second = constants_of((self.norm1, self.norm2))
        except NotFusableError:
            return super().forward(x)
        out = conv_norm_act(self.conv1, first, x)
        return conv_norm_act(self.conv2, second, out, shortcut_of(self.downsample, x))


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_plugins or (self.with_cp and x.requires_grad))
            check_relus(self.relu)
            first, second, third = constants_of((self.norm1, self.norm2, self.norm3))
        except NotFusableError:
            return super().forward(x)
        out = conv_norm_act(self.conv1, first, x)
        out = conv_norm_act(self.conv2, second, out)
        return conv_norm_act(self.conv3, third, out, shortcut_of(self.downsample, x))


def _check(does_more: bool) -> None:
    """Plugins, or checkpointing, which the library's own forward does."""
    if does_more:
        raise NotFusableError
