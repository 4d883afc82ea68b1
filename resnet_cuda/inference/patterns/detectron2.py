"""detectron2's blocks, whose convolution layers call their norm, and those of resnet_cuda.integrations.detectron2."""

from __future__ import annotations

from typing import Any

from torch import nn

from resnet_cuda.inference import blocks
from resnet_cuda.inference.pattern import Alone, Known, Pair, Pattern, Rewrite, residual, stem, with_offsets
from resnet_cuda.layers import ModulatedDeformConv


def _block(block: Any) -> Pattern:
    """Of detectron2's, where the norms are folded as each layer's own."""
    return Pattern((), _rewrite(block, _convs(block), []))


def _integration_block(block: Any) -> Pattern:
    """Of the integration's: ``conv.norm`` is a child that ``conv`` does not call, but the block."""
    convs = _convs(block)
    layers = [*convs.values(), *([] if block.shortcut is None else [block.shortcut])]
    pairs = [Pair(conv, conv.norm) for conv in layers if conv.norm is not None]
    norms = [conv.norm for conv in convs.values() if conv.norm is not None]
    return Pattern(pairs, _rewrite(block, convs, norms))


def _convs(block: Any) -> dict[str, Any]:
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    return {name: getattr(block, name) for name in names}


def _rewrite(block: Any, convs: dict[str, nn.Module], norms: list[nn.Module]) -> Rewrite:
    offset = getattr(block, "conv2_offset", None)
    if offset is None:
        return residual(block, convs, norms, "shortcut")
    modulated = getattr(block, "deform_modulated", isinstance(block.conv2, ModulatedDeformConv))

    def rewrite(alone: Alone) -> bool:
        conv2 = convs["conv2"]
        if not blocks.is_folded(conv2):
            return False
        return residual(block, {**convs, "conv2": with_offsets(offset, conv2, modulated)}, norms, "shortcut")(alone)

    return rewrite


def _stem(module: Any) -> Pattern:
    return Pattern((), stem(module, module.conv1, []))


def _integration_stem(module: Any) -> Pattern:
    pairs = [] if module.conv1.norm is None else [Pair(module.conv1, module.conv1.norm)]
    return Pattern(pairs, stem(module, module.conv1, [it.norm for it in pairs]))


_THEIRS, _OURS = "detectron2.modeling.backbone.resnet", "resnet_cuda.integrations.detectron2"
_SHORTCUT = ("forward", "_shortcut")
KNOWN = (
    Known(f"{_THEIRS}.BasicBlock", _block),
    Known(f"{_THEIRS}.BottleneckBlock", _block),
    Known(f"{_THEIRS}.DeformBottleneckBlock", _block),
    Known(f"{_THEIRS}.BasicStem", _stem),
    Known(f"{_OURS}.BasicBlock", _integration_block, _SHORTCUT),
    Known(f"{_OURS}.BottleneckBlock", _integration_block, _SHORTCUT),
    Known(f"{_OURS}.BasicStem", _integration_stem),
)
