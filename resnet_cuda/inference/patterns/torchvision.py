"""torchvision's ResNets, its detectors' bodies and pyramids, FCN's and DeepLab's heads, Conv2dNormActivation."""

from __future__ import annotations

from typing import Any

from torch import nn

from resnet_cuda.inference.pattern import Known, Pair, Pattern, pairs_in_sequence, residual, sequential_pairs
from resnet_cuda.inference.patterns.own import torchvision_pyramid
from resnet_cuda.layers.hooks import is_relu


def _basic_block(block: Any) -> Pattern:
    convs = {"conv1": block.conv1, "conv2": block.conv2}
    return _block(block, convs, [block.bn1, block.bn2])


def _bottleneck(block: Any) -> Pattern:
    convs = {"conv1": block.conv1, "conv2": block.conv2, "conv3": block.conv3}
    return _block(block, convs, [block.bn1, block.bn2, block.bn3])


def _block(block: Any, convs: dict[str, nn.Module], norms: list[nn.Module]) -> Pattern:
    pairs = [Pair(conv, norm) for conv, norm in zip(convs.values(), norms, strict=True)]
    rewrite = residual(block, convs, norms, "downsample", [block.relu])
    return Pattern([*pairs, *sequential_pairs(block.downsample)], rewrite)


def _resnet(network: Any) -> Pattern:
    relu = network.relu if is_relu(network.relu) else None
    return Pattern([Pair(network.conv1, network.bn1, relu)])


def _body(layers: Any) -> Pattern:
    """IntermediateLayerGetter: modules one after the other, the results of some of which are returned."""
    names = list(layers)
    pairs = []
    for pair in pairs_in_sequence(layers.values()):
        conv, norm = (next(name for name in names if layers[name] is it) for it in (pair.conv, pair.norm))
        if conv in layers.return_layers:
            continue
        pairs.append(Pair(pair.conv, pair.norm, None if norm in layers.return_layers else pair.relu))
    return Pattern(pairs)


def _in_order(layers: Any) -> Pattern:
    return Pattern(pairs_in_sequence(layers))


def _aspp(head: Any) -> Pattern:
    """DeepLab's parallel branches, of which those with a class of their own stand below, and what joins them."""
    return Pattern([pair for it in (*head.convs, head.project) for pair in sequential_pairs(it)])


KNOWN = (
    Known("torchvision.models.resnet.BasicBlock", _basic_block),
    Known("torchvision.models.resnet.Bottleneck", _bottleneck),
    Known("torchvision.models.resnet.ResNet", _resnet, ("forward", "_forward_impl")),
    Known("torchvision.models._utils.IntermediateLayerGetter", _body),
    Known(
        "torchvision.ops.feature_pyramid_network.FeaturePyramidNetwork",
        torchvision_pyramid,
        ("forward", "get_result_from_inner_blocks", "get_result_from_layer_blocks"),
    ),
    Known("torchvision.ops.misc.Conv2dNormActivation", _in_order),
    Known("torchvision.models.segmentation.fcn.FCNHead", _in_order),
    Known("torchvision.models.segmentation.deeplabv3.DeepLabHead", _in_order),
    Known("torchvision.models.segmentation.deeplabv3.ASPP", _aspp),
    Known("torchvision.models.segmentation.deeplabv3.ASPPConv", _in_order),
    Known("torchvision.models.segmentation.deeplabv3.ASPPPooling", _in_order),
)
