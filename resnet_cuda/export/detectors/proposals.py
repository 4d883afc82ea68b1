"""The proposals of torchvision's RegionProposalNetwork for one image, in operations that torch.export can trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resnet_cuda.export.detectors.clipping import is_larger
from resnet_cuda.export.detectors.images import Image
from resnet_cuda.export.detectors.suppression import apart, best, class_nms


def propose(rpn: Any, features: list[Tensor], image: Image) -> Tensor:
    """Proposed boxes (R, 4) in the resized image, from the image's ``features``."""
    objectness, deltas = rpn.head(features)
    anchors = level_anchors(rpn.anchor_generator, features, image.batch)
    boxes, scores, there = [], [], []
    for logits, its_deltas, its_anchors in zip(objectness, deltas, anchors, strict=True):
        logits = _by_anchor(logits, 1)[:, 0]
        logits, index = logits.topk(torch.sym_min(rpn.pre_nms_top_n(), logits.shape[0]))
        its_boxes = image.clip(rpn.box_coder.decode_single(_by_anchor(its_deltas, 4)[index], its_anchors[index]))
        its_scores = logits.sigmoid()
        boxes.append(its_boxes)
        scores.append(its_scores)
        there.append(is_larger(its_boxes, rpn.min_size) & (its_scores >= rpn.score_thresh))
    return _kept(rpn, boxes, scores, there)


def _kept(rpn: Any, boxes: list[Tensor], scores: list[Tensor], there: list[Tensor]) -> Tensor:
    levels = torch.cat([torch.full_like(its, level) for level, its in enumerate(scores)])
    moved = apart(torch.cat(boxes), levels, torch.cat(there))
    start, kept_boxes, kept_scores = 0, [], []
    for its_boxes, its_scores, its in zip(boxes, scores, there, strict=True):
        number = its_scores.shape[0]
        candidates = torch.where(its, its_scores, -torch.inf)[None]
        kept = class_nms(moved[start : start + number][None], candidates, rpn.nms_thresh)[:, 1]
        kept_boxes.append(its_boxes[kept])
        kept_scores.append(its_scores[kept])
        start = start + number
    return torch.cat(kept_boxes)[best(torch.cat(kept_scores), rpn.post_nms_top_n())]


def level_anchors(generator: Any, features: list[Tensor], batch: Tensor) -> list[Tensor]:
    """The anchors of each level, (H * W * A, 4). The strides are tensors, as in AnchorGenerator.forward."""
    strides = [[_quotient(batch.shape[-2 + it], level.shape[-2 + it]) for it in range(2)] for level in features]
    return generator.grid_anchors([level.shape[-2:] for level in features], strides)


def _quotient(size: int, cells: int) -> Tensor:
    numbers = [torch.scalar_tensor(it, dtype=torch.int64) for it in (size, cells)]
    return torch.div(*numbers, rounding_mode="floor")


def _by_anchor(prediction: Tensor, numbers: int) -> Tensor:
    """(1, A * numbers, H, W) as (H * W * A, numbers) [permute_and_flatten]."""
    _, channels, height, width = prediction.shape
    return prediction.view(channels // numbers, numbers, height, width).permute(2, 3, 0, 1).reshape(-1, numbers)
