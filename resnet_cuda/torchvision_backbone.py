"""torchvision's resnet_fpn_backbone with deformable stages; works without torchvision."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from resnet_cuda._arguments import flag, flags, integer
from resnet_cuda.blocks import NormFunction
from resnet_cuda.fpn import FeaturePyramidNetwork, LastLevelMaxPool
from resnet_cuda.fpn_levels import levels_of_pyramid
from resnet_cuda.output_shape import HasOutputShape, Level, levels_within
from resnet_cuda.torchvision_body import TorchvisionBody, norm_function
from resnet_cuda.weights import load_pretrained


class BackboneWithFPN(HasOutputShape, nn.Module):
    """``body`` and ``fpn``: maps (N, in_channels, H, W) to an OrderedDict of levels (N, out_channels, h, w)
    [torchvision.models.detection.backbone_utils.BackboneWithFPN].

    Args:
        body: maps images to an OrderedDict of levels.
        fpn: maps the levels of ``body`` to those of the result.
        out_channels: channels of every level of ``fpn``.
    """

    def __init__(self, body: TorchvisionBody, fpn: FeaturePyramidNetwork, out_channels: int):
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.out_channels = out_channels

    def levels(self) -> list[Level]:
        return levels_of_pyramid("fpn", self.fpn, levels_within("body", self.body))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
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
    fpn_norm_layer: str | NormFunction | None = None,
    in_channels: int = 3,
    replace_stride_with_dilation: Sequence[bool] = (False, False, False),
    deep_stem: bool | None = None,
    avg_down: bool | None = None,
    stride_in_1x1: bool = False,
) -> BackboneWithFPN:
    """A ResNet with a feature pyramid, for ``torchvision.models.detection`` [torchvision's resnet_fpn_backbone].

    ``forward`` (N, in_channels, H, W), for any H and W, gives an OrderedDict "0".."3", "pool". Without deformable
    stages the keys of its ``state_dict()`` are those of torchvision's function; the body's keys are also timm's.

    Args:
        backbone_name: resnet18, 34, 50, 101, 152, resnext50_32x4d, resnext101_32x8d, resnext101_64x4d, wide_resnet50_2
            or wide_resnet101_2; or timm's resnet18d, 34d, 50d, 101d, 152d, with ``deep_stem`` and ``avg_down``.
        weights: None, or anything that :func:`resnet_cuda.load_weights` takes: a torchvision weights enum or its name
            ("DEFAULT", "IMAGENET1K_V1"), a path, a URL, a state dict, ... of a classifier or a detector of any known
            library. A stem for three channels is adapted to ``in_channels`` by
            :func:`resnet_cuda.stem_weights.adapt_stem_weight`.
        trainable_layers: how many of layer4, layer3, layer2, layer1, stem are trained, in this order.
        returned_layers: stages to return, from 1 (C2) to 4 (C5); all by default.
        extra_blocks: makes further levels, with torchvision's interface; max pooling by default.
        norm_layer: "frozen_bn" (fused with residual and ReLU), "bn", "sync_bn", "gn" or a callable of the channels,
            such as ``functools.partial(torch.nn.BatchNorm2d, momentum=0.01)``.
        dcn_stages: four bools, which of C2 to C5 are deformable: the 3x3 of bottlenecks, or the second 3x3 of basic
            blocks.
        modulated: DCNv2 or v1.
        deformable_groups: offset groups of the deformable layers.
        width: channels of the stem, 64 in every published network; narrower ones train quickly on small data.
        fpn_channels: ``out_channels``, the channels of every level.
        fpn_norm_layer: the norm after each of the pyramid's convolutions, which then have no bias: None, or as
            ``norm_layer``. "bn" for both is the backbone of torchvision's maskrcnn_resnet50_fpn_v2.
        in_channels: channels of the image.
        replace_stride_with_dilation: three bools, which of C3 to C5 dilate their 3x3 convolutions, from the second
            block on, instead of having a stride [torchvision]. (False, False, True) is DC5. ``output_shape()`` has the
            resulting strides. Deformable convolutions are dilated, too.
        deep_stem: True: three 3x3 convolutions, ``conv1.0``, ``conv1.3``, ``conv1.6``, of width / 2, width / 2 and
            width channels, with norms ``conv1.1`` and ``conv1.4``, instead of the 7x7 (V1c, V1d). None: by
            ``backbone_name``.
        avg_down: True: a shortcut with a stride averages 2x2 pixels before its convolution ``downsample.1`` and norm
            ``downsample.2`` (V1d). None: by ``backbone_name``.
        stride_in_1x1: True: the stride of a bottleneck is in its first 1x1, as in Caffe2's, maskrcnn-benchmark's and
            detectron2's ResNet-50 and -101 and mmdetection's ``style="caffe"``. False: in the 3x3 [torchvision].

    Raises:
        KeyError: for an unknown name, listing the known ones.
        TypeError: if ``extra_blocks`` is no module.
        ValueError: for any other argument that is out of range, and for weights that do not fit.
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
    in_channels = integer(function, "in_channels", in_channels, 1)
    dilated = flags(function, "replace_stride_with_dilation", replace_stride_with_dilation, 3)
    deep_stem = None if deep_stem is None else flag(function, "deep_stem", deep_stem)
    avg_down = None if avg_down is None else flag(function, "avg_down", avg_down)
    stride_in_1x1 = flag(function, "stride_in_1x1", stride_in_1x1)
    if extra_blocks is not None and not isinstance(extra_blocks, nn.Module):
        raise TypeError(
            f"{function}: extra_blocks is {extra_blocks!r}; it must be None or a module with torchvision's interface, "
            "such as resnet_cuda.fpn.LastLevelP6P7(256, 256)"
        )
    fpn_norm = None if fpn_norm_layer is None else norm_function(fpn_norm_layer, "fpn_norm_layer")
    body = TorchvisionBody(
        backbone_name,
        norm_function(norm_layer),
        returned_layers,
        dcn_stages,
        modulated,
        deformable_groups,
        width,
        in_channels=in_channels,
        replace_stride_with_dilation=dilated,
        deep_stem=deep_stem,
        avg_down=avg_down,
        stride_in_1x1=stride_in_1x1,
    )
    _freeze(body, trainable_layers)
    channels = [body.stage_channels[f"layer{layer}"] for layer in returned_layers]
    extra_blocks = LastLevelMaxPool() if extra_blocks is None else extra_blocks
    fpn = FeaturePyramidNetwork(channels, fpn_channels, extra_blocks, fpn_norm)
    backbone = BackboneWithFPN(body, fpn, fpn_channels)
    if weights is not None:
        load_pretrained(backbone, backbone_name, weights)
    return backbone


def _freeze(body: TorchvisionBody, trainable_layers: int) -> None:
    trained = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
    if trainable_layers == 5:
        trained.append("bn1")
    for name, parameter in body.named_parameters():
        parameter.requires_grad = name.split(".", 1)[0] in trained
