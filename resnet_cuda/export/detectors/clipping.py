"""Boxes within an image whose size is a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """``boxes`` (..., 4) of (x1, y1, x2, y2) clipped to ``size`` (height, width) [clip_boxes_to_image]."""
    return torch.minimum(boxes.clamp(min=0), size[[1, 0, 1, 0]])


def is_larger(boxes: Tensor, smallest: float) -> Tensor:
    """Whether both sides of each box are at least ``smallest`` [remove_small_boxes]."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return (width >= smallest) & (height >= smallest)
