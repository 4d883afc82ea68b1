"""mmdetection's ResNets and resnet_cuda.integrations.mmdetection's."""

from __future__ import annotations

from typing import Any

from resnet_cuda.inference import blocks
from resnet_cuda.inference.pattern import (
    Alone,
    Known,
    Pair,
    Pattern,
    pairs_in_sequence,
    residual,
    sequential_pairs,
    with_offsets,
)
from resnet_cuda.layers import ModulatedDeformConv
from resnet_cuda.layers.hooks import is_relu


def _block(block: Any) -> Pattern:
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    convs = {name: getattr(block, name) for name in names}
    pairs = [Pair(conv, getattr(block, f"norm{name[-1]}")) for name, conv in convs.items()]
    norms = [it.norm for it in pairs]
    everything = [*pairs, *sequential_pairs(block.downsample)]
    if getattr(block, "with_plugins", False):
        return Pattern(everything)
    return Pattern(everything, residual(block, convs, norms, "downsample", [block.relu]))


def _network(network: Any) -> Pattern:
    if network.deep_stem:
        return Pattern(sequential_pairs(network.stem))
    relu = network.relu if is_relu(network.relu) else None
    return Pattern([Pair(network.conv1, network.norm1, relu)])


def _integration_block(block: Any) -> Pattern:
    convs = {conv: getattr(block, conv) for conv, _ in block.layers}
    pairs = [Pair(getattr(block, conv), getattr(block, norm)) for conv, norm in block.layers]
    norms = [it.norm for it in pairs]
    everything = [*pairs, *sequential_pairs(block.downsample)]
    conv2 = convs["conv2"]
    offset = getattr(conv2, "conv_offset", None)
    if offset is None:
        return Pattern(everything, residual(block, convs, norms, "downsample"))
    modulated = isinstance(conv2, ModulatedDeformConv)

    def rewrite(alone: Alone) -> bool:
        if not blocks.is_folded(conv2):
            return False
        conv2._modules.pop("conv_offset")  # its parent is the new layer
        return residual(block, {**convs, "conv2": with_offsets(offset, conv2, modulated)}, norms, "downsample")(alone)

    return Pattern(everything, rewrite)


def _integration_network(network: Any) -> Pattern:
    if network.deep_stem:
        return Pattern(pairs_in_sequence(network.stem))
    return Pattern([Pair(network.conv1, getattr(network, network.norm1_name))])


_THEIRS, _OURS = "mmdet.models.backbones", "resnet_cuda.integrations.mmdetection"
_NORMS = ("forward", "norm1", "norm2")
KNOWN = (
    Known(f"{_THEIRS}.resnet.BasicBlock", _block, _NORMS),
    Known(f"{_THEIRS}.resnet.Bottleneck", _block, (*_NORMS, "norm3", "forward_plugin")),
    Known(f"{_THEIRS}.resnet.ResNet", _network, ("forward", "norm1")),
    Known(f"{_OURS}._Block", _integration_block, ("forward", "_compute")),
    Known(f"{_OURS}.ResNetCUDA", _integration_network, ("forward", "_stem_layers")),
)
