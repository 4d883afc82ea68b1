"""torchvision's resnet_fpn_backbone with deformable stages; works without torchvision."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.blocks import NormFunction
from resnet_cuda.fpn import FeaturePyramidNetwork, LastLevelMaxPool
from resnet_cuda.fpn_levels import levels_of_pyramid
from resnet_cuda.output_shape import HasOutputShape, Level, levels_within
from resnet_cuda.torchvision_body import TorchvisionBody, norm_function
from resnet_cuda.weights import load_classification_weights, state_dict_of


class BackboneWithFPN(HasOutputShape, nn.Module):
    """``body`` and ``fpn``: (N, 3, H, W) to an OrderedDict of levels, each of ``out_channels`` channels."""

    def __init__(self, body: TorchvisionBody, fpn: FeaturePyramidNetwork, out_channels: int):
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.out_channels = out_channels

    def levels(self) -> list[Level]:
        return levels_of_pyramid("fpn", self.fpn, levels_within("body", self.body))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(self.body(x))


def resnet_fpn_backbone(
    backbone_name: str = "resnet50",
    *,
    weights: Any = None,
    trainable_layers: int = 3,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: nn.Module | None = None,
    norm_layer: str | NormFunction = "frozen_bn",
    dcn_stages: Sequence[bool] = (False, False, False, False),
    modulated: bool = True,
    deformable_groups: int = 1,
    width: int = 64,
    fpn_channels: int = 256,
) -> BackboneWithFPN:
    """A ResNet with a feature pyramid, for ``torchvision.models.detection`` [torchvision's resnet_fpn_backbone].

    ``forward`` (N, 3, H, W), any H and W, gives an OrderedDict "0".."3", "pool". Without deformable stages the keys of
    its ``state_dict()`` are those of torchvision's function.

    Args:
        backbone_name: resnet18, 34, 50, 101, 152, resnext50_32x4d, resnext101_32x8d, resnext101_64x4d, wide_resnet50_2
            or wide_resnet101_2.
        weights: None; a state dict of a classification network with torchvision's keys; a torchvision weights enum or
            its name ("DEFAULT", "IMAGENET1K_V1"), which needs torchvision. A deformable layer takes the plain
            convolution's weight, its offsets start at 0. See :mod:`resnet_cuda.weights`.
        trainable_layers: how many of layer4, layer3, layer2, layer1, stem are trained, counted from the last.
        returned_layers: stages to return, of 1 (C2) to 4 (C5); all by default.
        extra_blocks: makes further levels, called as torchvision calls its own; max pooling by default.
        norm_layer: "frozen_bn" (fused with residual and ReLU), "bn", "sync_bn", "gn" or a callable of the channels,
            such as ``functools.partial(torch.nn.BatchNorm2d, momentum=0.01)``.
        dcn_stages: four bools, which of C2 to C5 are deformable: the 3x3 of bottlenecks, the second 3x3 of basic
            blocks.
        modulated: DCNv2 or v1.
        deformable_groups: offset groups of the deformable layers.
        width: channels of the stem, 64 in every published network; narrower ones train quickly on small data.
        fpn_channels: channels of every level, ``out_channels``.

    Raises:
        KeyError: for an unknown name, listing the known ones.
        ValueError: for another argument out of range, and for weights that do not fit.
    """
    function = "resnet_fpn_backbone"
    trainable_layers = integer(function, "trainable_layers", trainable_layers)
    if not 0 <= trainable_layers <= 5:
        raise ValueError(f"trainable_layers is {trainable_layers!r}; it must be 0 to 5")
    if returned_layers is None:
        returned_layers = [1, 2, 3, 4]
    returned_layers = [integer(function, "an entry of returned_layers", layer) for layer in returned_layers]
    if not returned_layers or returned_layers != sorted(set(returned_layers) & {1, 2, 3, 4}):
        raise ValueError(f"returned_layers is {returned_layers}; it must be ascending, of 1, 2, 3, 4")
    dcn_stages = flags(function, "dcn_stages", dcn_stages, 4)
    modulated = flag(function, "modulated", modulated)
    deformable_groups = integer(function, "deformable_groups", deformable_groups, 1)
    width, fpn_channels = integer(function, "width", width, 1), integer(function, "fpn_channels", fpn_channels, 1)
    body = TorchvisionBody(
        backbone_name, norm_function(norm_layer), returned_layers, dcn_stages, modulated, deformable_groups, width
    )
    if weights is not None:
        load_classification_weights(body, state_dict_of(backbone_name, weights))
    _freeze(body, trainable_layers)
    channels = [body.stage_channels[f"layer{layer}"] for layer in returned_layers]
    fpn = FeaturePyramidNetwork(channels, fpn_channels, LastLevelMaxPool() if extra_blocks is None else extra_blocks)
    return BackboneWithFPN(body, fpn, fpn_channels)


def _freeze(body: TorchvisionBody, trainable_layers: int) -> None:
    trained = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
    if trainable_layers == 5:
        trained.append("bn1")
    for name, parameter in body.named_parameters():
        parameter.requires_grad = name.split(".", 1)[0] in trained
