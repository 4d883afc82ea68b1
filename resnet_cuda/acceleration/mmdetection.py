"""mmdetection's ResNet blocks."""

from __future__ import annotations

from mmdet.models.backbones import resnet
from torch import Tensor

from resnet_cuda.acceleration.fused import NotFusableError, basic_block, bottleneck, check_relus


class BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_cp and x.requires_grad)
            check_relus(self.relu)
            return basic_block(self, (self.norm1, self.norm2), x)
        except NotFusableError:
            return super().forward(x)


class Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        try:
            _check(self.with_plugins or (self.with_cp and x.requires_grad))
            check_relus(self.relu)
            return bottleneck(self, (self.norm1, self.norm2, self.norm3), x)
        except NotFusableError:
            return super().forward(x)


def _check(does_more: bool) -> None:
    """Plugins, or checkpointing, which the library's own forward does."""
    if does_more:
        raise NotFusableError
