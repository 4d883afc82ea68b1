"""A detector's parts beside its backbone, out of another one of torchvision's: what fits is taken, the rest stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from detection.models.classes import Names, taken_over
from resnet_cuda.weights.checkpoint import Checkpoint
from resnet_cuda.weights.legacy import present_key


@dataclass
class Heads:
    """The result of :func:`fit`; layers are modules with parameters of their own, such as "rpn.head.cls_logits".

    Attributes:
        tensors: a value for every key of the model beside the backbone's: the source's, or the model's own.
        taken: layers that get the source's values.
        renamed: those of them of which only the channels of certain classes are taken, or in another order.
        fresh: layers that keep the model's values.
        left: the source's layers that the model does not have.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def fit(source: Checkpoint, model: Checkpoint, given: Names, wanted: Names) -> Heads:
    """Layer by layer: a layer is taken where the source has all its tensors in the model's shapes."""
    theirs = {present_key(key): value for key, value in source.foreign.items()}
    heads = Heads()
    layers = _by_layer(model.foreign)
    for layer, leaves in layers.items():
        values: dict[str, Tensor] = {}
        for leaf, own in leaves.items():
            origin = theirs.get(f"{layer}.{leaf}")
            value = None if origin is None else taken_over(layer, leaf, origin, given, wanted)
            if value is not None and value.shape == own.shape:
                values[leaf] = value
                if value is not origin and layer not in heads.renamed:
                    heads.renamed.append(layer)
        is_whole = len(values) == len(leaves)
        (heads.taken if is_whole else heads.fresh).append(layer)
        for leaf, own in leaves.items():
            heads.tensors[model.other_keys[f"{layer}.{leaf}"]] = values[leaf] if is_whole else own
    heads.renamed = [layer for layer in heads.renamed if layer in heads.taken]
    heads.left = [layer for layer in _by_layer(theirs) if layer not in layers]
    return heads


def parts(layers: Iterable[str], all_layers: Iterable[str]) -> list[str]:
    """``layers`` as few names: "roi_heads.box_predictor" where all layers in it are among them."""
    layers, others = list(layers), set(all_layers) - set(layers)
    names: list[str] = []
    for layer in layers:
        pieces = layer.split(".")
        prefixes = [".".join(pieces[:count]) for count in range(1, len(pieces) + 1)]
        name = next(it for it in prefixes if not any(f"{other}.".startswith(f"{it}.") for other in others))
        if name not in names:
            names.append(name)
    return names


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        layer, _, leaf = key.rpartition(".")
        layers[layer][leaf] = value
    return dict(layers)
