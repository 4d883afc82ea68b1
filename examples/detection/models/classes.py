"""The last layers of a detector, which have channels for each class or keypoint: those of other classes, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of each layer: the shape in which its first dimension is to be seen, with -1 for the classes, None for what is left.
_OF_CLASSES: dict[str, tuple[int | None, ...]] = {
    "roi_heads.box_predictor.cls_score": (-1,),
    "roi_heads.box_predictor.bbox_pred": (-1, 4),
    "roi_heads.mask_predictor.mask_fcn_logits": (-1,),
    "head.classification_head.cls_logits": (None, -1),  # the anchors of a place, then the classes
}
_OF_KEYPOINTS = "roi_heads.keypoint_predictor.kps_score_lowres"  # transposed: a weight's keypoints are its dimension 1


@dataclass(frozen=True)
class Names:
    """Of the labels 0, 1, ... (0 is the background) and of the keypoints; None where they are not known."""

    labels: tuple[str, ...] | None = None
    keypoints: tuple[str, ...] | None = None


def is_of_classes(layer: str) -> bool:
    return layer in _OF_CLASSES


def is_of_keypoints(layer: str) -> bool:
    return layer == _OF_KEYPOINTS


def taken_over(layer: str, leaf: str, value: Tensor, given: Names, wanted: Names) -> Tensor | None:
    """A tensor of ``layer`` with the channels of the ``wanted`` names in their order.

    The value itself for another layer, and where the ``given`` names are not known. None unless all wanted names are
    given: a predictor of which a part is trained and a part not would have scores of two kinds.

    Args:
        leaf: "weight" or "bias".
    """
    if is_of_keypoints(layer):
        given_names, wanted_names = given.keypoints, wanted.keypoints
    elif is_of_classes(layer):
        given_names, wanted_names = given.labels, wanted.labels
    else:
        return value
    if given_names is None or wanted_names is None or given_names == wanted_names:
        return value
    indices = _indices(given_names, wanted_names)
    if indices is None:
        return None
    if is_of_keypoints(layer):
        dimension = 1 if leaf == "weight" else 0
        return value.index_select(dimension, indices) if value.shape[dimension] == len(given_names) else None
    return _selected(value, _OF_CLASSES[layer], len(given_names), indices)


def _indices(given: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    if not set(wanted) <= set(given):
        return None
    return torch.tensor([given.index(name) for name in wanted])


def _selected(value: Tensor, view: tuple[int | None, ...], count: int, indices: Tensor) -> Tensor | None:
    size, rest = value.shape[0], value.shape[1:]
    other = 1
    for entry in view:
        other *= entry if entry is not None and entry != -1 else 1
    per_class, remainder = divmod(size, count * other)
    if remainder or (None not in view and per_class != 1):
        return None  # not of as many classes as there are names
    shape = [count if entry == -1 else per_class if entry is None else entry for entry in view]
    selected = value.reshape(*shape, *rest).index_select(view.index(-1), indices)
    return selected.reshape(-1, *rest)
