"""torchvision's Faster, Mask and Keypoint R-CNN on one image, in operations that torch.export can trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.export.detectors.clipping import is_larger
from resnet_cuda.export.detectors.images import Image, prepare
from resnet_cuda.export.detectors.keypoints import keypoints_of
from resnet_cuda.export.detectors.masks import paste
from resnet_cuda.export.detectors.pooling import pool
from resnet_cuda.export.detectors.proposals import propose
from resnet_cuda.export.detectors.suppression import apart, best, class_nms


class ExportableRCNN(nn.Module):
    """``model``'s own modules, called in the order of GeneralizedRCNN.forward. Takes an image (3, H, W) and returns a
    dictionary with the model's keys; of K detections, boxes are (K, 4), labels and scores (K,), masks (K, 1, H, W),
    keypoints (K, P, 3) and keypoints_scores (K, P)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        heads = self.model.roi_heads
        prepared = prepare(self.model.transform, image)
        features = self.model.backbone(prepared.batch)
        if isinstance(features, Tensor):
            features = {"0": features}
        proposals = propose(self.model.rpn, list(features.values()), prepared)
        boxes, labels, scores = _detections(heads, features, proposals, prepared)
        found = {"boxes": prepared.to_original(boxes.view(-1, 2, 2)).view(-1, 4), "labels": labels, "scores": scores}
        if heads.has_mask():
            logits = heads.mask_predictor(heads.mask_head(pool(heads.mask_roi_pool, features, boxes)))
            masks = logits[torch.arange(labels.shape[0], device=labels.device), labels][:, None].sigmoid()
            found["masks"] = paste(masks, found["boxes"], *image.shape[-2:])
        if heads.has_keypoint():
            pooled = pool(heads.keypoint_roi_pool, features, boxes)
            keypoints, keypoint_scores = keypoints_of(heads.keypoint_predictor(heads.keypoint_head(pooled)), boxes)
            places, visible = prepared.to_original(keypoints[..., :2]), keypoints[..., 2:]
            found["keypoints"] = torch.cat([places, visible], -1)
            found["keypoints_scores"] = keypoint_scores
        return found


def _detections(
    heads: Any, features: Mapping[str, Tensor], proposals: Tensor, image: Image
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in the resized image, labels and scores [RoIHeads.postprocess_detections]. In between are C classes without
    the background by R proposals."""
    logits, deltas = heads.box_predictor(heads.box_head(pool(heads.box_roi_pool, features, proposals)))
    number = logits.shape[-1]
    scores = logits.softmax(-1)[:, 1:].transpose(0, 1)  # (C, R)
    boxes = heads.box_coder.decode_single(deltas, proposals).view(-1, number, 4)[:, 1:].transpose(0, 1)  # (C, R, 4)
    boxes = image.clip(boxes)
    there = (scores > heads.score_thresh) & is_larger(boxes, 1e-2)
    labels = torch.arange(1, number, device=scores.device)[:, None].expand_as(scores)
    kept = class_nms(apart(boxes, labels, there), torch.where(there, scores, -torch.inf), heads.nms_thresh)
    index, proposal = kept.unbind(1)
    order = best(scores[index, proposal], heads.detections_per_img, proposal * number + index)
    index, proposal = index[order], proposal[order]
    return boxes[index, proposal], index + 1, scores[index, proposal]
