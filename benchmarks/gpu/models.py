"""The backbones of phase 7 with the same parameters: ours, torchvision's, and torchvision's with its own deform_conv2d."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.gpu.names import DEFORMABLE, PLAIN
from resnet_cuda import resnet_fpn_backbone
from resnet_cuda.layers import DFConv2d

STAGES = {PLAIN: (False, False, False, False), DEFORMABLE: (False, True, True, True)}
OFFSET_PIXELS = 2.0


class TorchvisionDFConv2d(nn.Module):
    """DFConv2d's parameters around torchvision.ops.deform_conv2d, as detectron2 and mmdetection wire theirs."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.offset = nn.Conv2d(channels, 27, 3, stride, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d

        y, x_, mask = self.offset(x).chunk(3, dim=1)
        offset = torch.cat((y, x_), dim=1)
        return deform_conv2d(x, offset, self.conv.weight, None, self.conv.stride, 1, 1, mask.sigmoid())


def ours(kind: str, image: Tensor) -> nn.Module:
    """Our backbone on the image's device, offsets spread by about 2 pixels on that image where it is deformable."""
    torch.manual_seed(0)
    model = resnet_fpn_backbone("resnet50", trainable_layers=3, dcn_stages=STAGES[kind])
    model = model.to(image.device, memory_format=torch.channels_last)
    _spread_offsets(model, image)
    return model


def _spread_offsets(model: nn.Module, image: Tensor) -> None:
    """Random weights for the layers that predict offsets, scaled one after the other as the image passes."""

    def scale(layer: nn.Module, _arguments: object, output: Tensor) -> Tensor:
        factor = OFFSET_PIXELS / output.std().clamp_min(1e-6)
        layer.weight.mul_(factor)
        return output * factor

    hooks = []
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, DFConv2d):
                nn.init.normal_(layer.offset.weight)
                hooks.append(layer.offset.register_forward_hook(scale))
        model(image)
    for hook in hooks:
        hook.remove()


def torchvisions(kind: str, own: nn.Module) -> nn.Module:
    """torchvision's backbone with the parameters of ``own``."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone as torchvision_backbone

    model = torchvision_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    if kind == DEFORMABLE:
        for stage in ("layer2", "layer3", "layer4"):
            for block in getattr(model.body, stage):
                trained = block.conv2.weight.requires_grad
                block.conv2 = TorchvisionDFConv2d(block.conv2.in_channels, block.conv2.stride[0]).requires_grad_(
                    trained
                )
    model.load_state_dict(own.state_dict())
    device = next(own.parameters()).device
    return model.to(device, memory_format=torch.channels_last)
