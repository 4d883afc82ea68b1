"""torchvision's RetinaNet on one image, in operations that torch.export can trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.export.detectors.images import Image, prepare
from resnet_cuda.export.detectors.proposals import level_anchors
from resnet_cuda.export.detectors.suppression import apart, best, class_nms


class ExportableRetinaNet(nn.Module):
    """``model``'s own modules, called in the order of RetinaNet.forward. Takes an image (3, H, W) and returns a
    dictionary with the model's keys: of K detections, boxes (K, 4), scores and labels (K,)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        prepared = prepare(self.model.transform, image)
        features = self.model.backbone(prepared.batch)
        levels = [features] if isinstance(features, Tensor) else list(features.values())
        anchors = level_anchors(self.model.anchor_generator, levels, prepared.batch)
        candidates = [_candidates(self.model, *it, prepared) for it in zip(levels, anchors, strict=True)]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        kept = _kept(self.model, boxes, scores, labels)
        boxes = prepared.to_original(boxes[kept].view(-1, 2, 2)).view(-1, 4)
        return {"boxes": boxes, "scores": scores[kept], "labels": labels[kept]}


def _candidates(model: Any, level: Tensor, anchors: Tensor, image: Image) -> tuple[Tensor, Tensor, Tensor]:
    """The best of a level: boxes (N, 4) in the resized image, scores (N,), -inf under the threshold, and labels."""
    predicted = model.head([level])
    logits, deltas = predicted["cls_logits"][0], predicted["bbox_regression"][0]
    scores = logits.sigmoid().flatten()
    scores = torch.where(scores > model.score_thresh, scores, -torch.inf)
    scores, index = scores.topk(torch.sym_min(model.topk_candidates, scores.shape[0]))
    number = logits.shape[-1]
    anchor = torch.div(index, number, rounding_mode="floor")
    boxes = image.clip(model.box_coder.decode_single(deltas[anchor], anchors[anchor]))
    return boxes, scores, index % number


def _kept(model: Any, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    there = scores > -torch.inf
    moved = apart(boxes, labels, there)
    classes = torch.arange(model.head.classification_head.num_classes, device=labels.device)[:, None]
    by_class = torch.where(labels == classes, scores, -torch.inf)  # (C, N)
    (kept,) = class_nms(moved.expand(len(classes), -1, -1), by_class, model.nms_thresh)[:, 1:].unbind(1)
    return kept[best(scores[kept], model.detections_per_img, kept)]
