"""timm's ResNets."""

from __future__ import annotations

from typing import Any

from torch import nn

from resnet_cuda.exact import peer_class, why_touched
from resnet_cuda.inference.pattern import Known, Pair, Pattern, pairs_in_sequence, residual, sequential_pairs
from resnet_cuda.inference.patterns.own import stem_pairs
from resnet_cuda.layers.hooks import is_relu


def _block(block: Any) -> Pattern:
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    convs = {name: getattr(block, name) for name in names}
    pairs = [Pair(conv, getattr(block, f"bn{name[-1]}")) for name, conv in convs.items()]
    relus = [getattr(block, f"act{name[-1]}") for name in names]
    drop_path = None if _is_drop_path(block.drop_path) else block.drop_path
    nothing = [block.drop_block, block.aa, block.se, drop_path]
    rewrite = residual(block, convs, [it.norm for it in pairs], "downsample", relus, nothing)
    return Pattern([*pairs, *sequential_pairs(block.downsample)], rewrite)


def _is_drop_path(module: nn.Module | None) -> bool:
    """timm's stochastic depth, which does nothing in evaluation mode."""
    known = peer_class("timm.layers.drop.DropPath")
    return module is not None and type(module) is known and not module.training and why_touched(module) is None


def _resnet(network: Any) -> Pattern:
    pairs = stem_pairs(network.conv1, network.bn1)
    if is_relu(network.act1):
        pairs[-1] = Pair(pairs[-1].conv, pairs[-1].norm, network.act1)
    return Pattern(pairs)


def _features(layers: Any) -> Pattern:
    """FeatureListNet and FeatureDictNet: modules one after the other, some of which are returned; of a ResNet only."""
    names = list(layers)
    if names[:3] != ["conv1", "bn1", "act1"] or {"conv1", "bn1"} & set(layers.return_layers):
        return Pattern()
    pairs = stem_pairs(layers["conv1"], layers["bn1"])
    if is_relu(layers["act1"]):
        pairs[-1] = Pair(pairs[-1].conv, pairs[-1].norm, layers["act1"])
    return Pattern(pairs)


def _conv_norm_act(module: Any) -> Pattern:
    return Pattern(pairs_in_sequence([module.conv, module.bn]))


KNOWN = (
    Known("timm.models.resnet.BasicBlock", _block),
    Known("timm.models.resnet.Bottleneck", _block),
    Known("timm.models.resnet.ResNet", _resnet, ("forward", "forward_features")),
    Known("timm.models._features.FeatureListNet", _features, ("forward", "_collect")),
    Known("timm.models._features.FeatureDictNet", _features, ("forward", "_collect")),
    Known("timm.layers.conv_bn_act.ConvNormAct", _conv_norm_act),
)
