"""Non-maximum suppression within each class as one operator, which torch.export can trace in spite of the unknown
number of results, and which becomes ONNX's ``NonMaxSuppression``.

Each class is one batch of NonMaxSuppression, so that boxes need no per-class shift as in torchvision's batched_nms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ABOVE_MINUS_INFINITY = torch.finfo(torch.float32).min
_ANY_NUMBER = torch.iinfo(torch.int64).max
# torchvision's batched_nms on a CPU moves classes apart up to this many coordinates, and loops over classes beyond.
_MOVED_APART = 4000


@torch.library.custom_op("resnet_cuda_export::class_nms", mutates_args=())
def class_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """``boxes`` (C, N, 4), ``scores`` (C, N), -inf for padding. Returns the indices (class, box) of the kept boxes,
    (K, 2) int64, class by class, highest score first."""
    from torchvision.ops import nms

    kept = []
    for index, (its_boxes, its_scores) in enumerate(zip(boxes, scores, strict=True)):
        (there,) = torch.where(its_scores > _ABOVE_MINUS_INFINITY)
        found = there[nms(its_boxes[there], its_scores[there], iou_threshold)]
        kept.append(torch.stack([torch.full_like(found, index), found], 1))
    return torch.cat(kept)


@class_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 2), dtype=torch.int64)


def translation(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """``class_nms`` for ``custom_translation_table``."""
    from onnxscript import opset18 as op  # type: ignore[import-not-found, unused-ignore]

    scores = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
    kept = op.NonMaxSuppression(
        boxes,
        scores,
        op.Constant(value_ints=[_ANY_NUMBER]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[_ABOVE_MINUS_INFINITY]),
    )
    return op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)


def apart(boxes: Tensor, classes: Tensor, there: Tensor) -> Tensor:
    """``boxes`` (..., 4) rounded as torchvision's batched_nms rounds them where it shifts ``classes`` (...) apart: the
    rounding decides on boxes whose overlap equals the threshold. ``there`` (...) is False for padding."""
    largest = torch.where(there[..., None], boxes, 0).max()
    moved = boxes + (classes.to(boxes) * (largest + 1))[..., None]
    return torch.where(4 * there.sum() <= _MOVED_APART, moved, boxes)


def best(scores: Tensor, number: int, place: Tensor | None = None) -> Tensor:
    """The indices of the ``number`` highest ``scores`` (K,), highest first; ties in the order of ``place`` (K,) or by
    index. The exporter translates only sort without ``stable=True``; ONNX's TopK is stable."""
    if place is not None:
        by_place = place.argsort()
        return by_place[best(scores[by_place], number)]
    return scores.sort(descending=True).indices[:number]
