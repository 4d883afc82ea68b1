"""Keypoints of detections as one operator [torchvision's heatmaps_to_keypoints].

Each heat map is resized to its box: a loop over sizes that depend on the boxes, which torch.export cannot trace.
keypoints_onnx.py translates the operator to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("resnet_cuda_export::keypoints_of", mutates_args=())
def keypoints_of(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """``maps`` (K, P, M, M), ``boxes`` (K, 4). Returns (x, y, 1) in the image of the boxes, (K, P, 3), and scores
    (K, P)."""
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

    keypoints, scores = heatmaps_to_keypoints(maps, boxes)
    return keypoints.contiguous(), scores


@keypoints_of.register_fake
def _(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    number, points = maps.shape[:2]
    return maps.new_empty((number, points, 3)), maps.new_empty((number, points))
